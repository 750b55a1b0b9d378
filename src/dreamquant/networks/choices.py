"""What a user can say of a network; without torch, so that the command line's help is instant."""

from __future__ import annotations

from typing import Literal

Kind = Literal["classification", "multi-label", "segmentation", "tensors"]
