"""What a user can say of a network; without torch, so that the command line's help is instant."""

from __future__ import annotations

from typing import Literal

Form = Literal["nchw", "nhwc", "uint8-nchw", "uint8-nhwc"]
"""How a file takes its input: channels first or last, as numbers or as whole pixels."""

Kind = Literal["classification", "multi-label", "segmentation", "tensors"]
