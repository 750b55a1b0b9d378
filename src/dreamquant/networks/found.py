"""An architecture as its origin gives it: a zoo, a file of Python, an ONNX file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from dreamquant.networks.choices import Form

Boxes = Callable[[Any], Tensor]
"""Makes boxes (images, boxes, 6) of a network's outputs: corners, score and class of each."""


@dataclass(frozen=True)
class Found:
    """An architecture, and what its origin knows about its input.

    Attributes:
        module: as the origin built it.
        source: what to name as the origin of shape, mean and std.
        shape: of one input, such as channels, height, width; ``None`` where unknown.
        mean: one per channel, in units of [0, 1] pixels; ``None`` where unknown.
        std: like ``mean``.
        resize: short side evaluation images are scaled to before the centre crop, in pixels.
        class_names: of the pretrained weights; empty with other weights or where unknown.
        hint: what to tell a user who must give what is unknown.
        num_classes: that it says it has; ``None`` where it does not say.
        notes: what was changed to take it in, in words.
        features: whether the input holds no pixels; ``None`` where it does not say.
        bgr: whether its channels are blue, green, red.
        boxes: makes boxes of the outputs, where the origin knows how.
        entry: name of the input in the file that it is from; empty where it is from none.
        outputs: names of its outputs there.
        form: how that file takes its input.
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
