"""An architecture from its origin: a model zoo, a Python file or an ONNX file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from dreamquant.networks.choices import Form

Boxes = Callable[[Any], Tensor]
"""Converts a network's outputs to boxes (images, boxes, 6): corners, score, class."""


@dataclass(frozen=True)
class Found:
    """An architecture, and the information of its origin about its input.

    Attributes:
        module: the module as its origin built it.
        source: name of the origin of shape, mean and std.
        shape: shape of one input, such as (channels, height, width); ``None`` if unknown.
        mean: one value per channel, in units of [0, 1] pixels; ``None`` if unknown.
        std: like ``mean``.
        resize: evaluation images are scaled to this short side, in pixels, before the centre crop.
        class_names: classes of the pretrained weights; empty with other weights or if unknown.
        hint: help for a user who must give unknown values.
        num_classes: number of classes according to the origin; ``None`` if it does not say.
        notes: descriptions of changes that were made to the network.
        features: whether the input is not an image; ``None`` if the origin does not say.
        bgr: whether the channels are in the order blue, green, red.
        boxes: converts the outputs to boxes, if the origin defines that.
        entry: name of the input in the network's file; empty without a file.
        outputs: names of the outputs in that file.
        form: form of the input in that file.
    """

    module: nn.Module
    source: str = ""
    shape: tuple[int, ...] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    resize: int | None = None
    class_names: tuple[str, ...] = ()
    hint: str = ""
    num_classes: int | None = None
    notes: tuple[str, ...] = ()
    features: bool | None = None
    bgr: bool = False
    boxes: Boxes | None = None
    entry: str = ""
    outputs: tuple[str, ...] = ()
    form: Form = "nchw"
