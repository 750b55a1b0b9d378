"""Choices that a user has for a network. Imports no torch, so that ``--help`` is fast."""

from __future__ import annotations

from typing import Literal

Form = Literal["nchw", "nhwc", "uint8-nchw", "uint8-nhwc"]
"""The input of a file: channels first or last, normalised numbers or uint8 pixels."""

Kind = Literal["classification", "multi-label", "segmentation", "tensors"]
