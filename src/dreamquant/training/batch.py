"""A batch of images, and the request for one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor


@dataclass(frozen=True)
class Request:
    """The targets, latents and conditions that images are made from.

    Attributes:
        targets: labels (B,), int64, or soft ones (B, classes).
        latent: input of a generator, (B, latent); for a pool the rows (B,).
        conditions: further conditions of each image, (B, ...), by name.
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
    """Images and the request that they were made from.

    Attributes:
        images: (B, C, H, W), normalised; from a generator that learns, with a graph to it.
        targets: labels (B,), int64, or soft ones (B, classes).
        latent: what the images were made from, (B, ...).
        conditions: further conditions of each image, (B, ...), by name.
    """

    images: Tensor
    targets: Tensor
    latent: Tensor
    conditions: Mapping[str, Tensor] = field(default_factory=dict)
