"""What a batch of images is to be, and the batch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor


@dataclass(frozen=True)
class Request:
    """What a batch of images is to be.

    Attributes:
        targets: labels (B,), int64, or soft ones (B, classes).
        latent: what a generator makes the images from, (B, latent); of a pool the rows (B,).
        conditions: what else is asked of each image, (B, ...), by name.
    """

    targets: Tensor
    latent: Tensor
    conditions: Mapping[str, Tensor] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.targets)

    def part(self, index: int, count: int) -> Request:
        """The ``index``-th of ``count`` equal parts; neighbours stay together, as pairs must."""
        size = len(self) // count
        own = slice(index * size, (index + 1) * size)
        conditions = {name: asked[own] for name, asked in self.conditions.items()}
        return Request(self.targets[own], self.latent[own], conditions)


@dataclass(frozen=True)
class Batch:
    """Images and what was asked of them.

    Attributes:
        images: (B, C, H, W), normalised; from a generator that learns, with a graph to it.
        targets: labels (B,), int64, or soft ones (B, classes).
        latent: what the images were made from, (B, ...).
        conditions: what else was asked of each image, (B, ...), by name.
    """

    images: Tensor
    targets: Tensor
    latent: Tensor
    conditions: Mapping[str, Tensor] = field(default_factory=dict)
