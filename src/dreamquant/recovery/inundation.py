"""Updates enlarged until enough codes change: gradient inundation of AIT (CVPR 2022)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from dreamquant.quantization.student import Student

_SMALL_IMAGE = 64


@dataclass(frozen=True)
class Inundation:
    """Scales an optimizer's update of each weight so that a fraction of its codes change.

    Weights between two codes move in vain while they stay between them. Where an update changes
    fewer codes than wanted, it is doubled until enough change, and then ``halvings`` times the
    interval that the wanted factor lies in is halved. The wanted fraction falls with the learning
    rate.

    Attributes:
        fraction: of a tensor's codes that are to change at each step, for images of up to 64
            pixels.
        fraction_large: likewise, for larger ones.
        halvings: of the interval.
        most: largest factor; ours, for an update of zero changes no code however large.
    """

    fraction: float = 1e-3
    fraction_large: float = 1e-4
    halvings: int = 5
    most: float = 2.0**16

    def wanted(self, image: tuple[int, ...]) -> float:
        """The fraction for images (C, H, W)."""
        return self.fraction if max(image[1:]) <= _SMALL_IMAGE else self.fraction_large

    @contextmanager
    def enlarging(self, student: Student, wanted: float) -> Iterator[None]:
        """Scale what an optimizer adds to the student's quantized weights within.

        Args:
            student: whose optimizer takes a step within, one that does not read the weights.
            wanted: fraction of codes.
        """
        weights = student.quantized_weights().values()
        before = [latent.detach().clone() for latent, _ in weights]
        # Added to zero, an update keeps the digits that it would lose added to a weight.
        for latent, _ in weights:
            latent.data.zero_()
        yield
        with torch.no_grad():
            for (latent, quantizer), old in zip(weights, before, strict=True):
                update = latent.detach().clone()
                latent.copy_(old + self.factor(old, update, quantizer.codes, wanted) * update)

    def factor(
        self, old: Tensor, update: Tensor, codes: Callable[[Tensor], Tensor], wanted: float
    ) -> float:
        """How many times the update is to be taken; 1 where it changes enough codes as it is.

        Args:
            old: the weight before it.
            update: what the optimizer adds.
            codes: of a weight.
            wanted: fraction of codes that are to change.
        """
        standing = codes(old)

        def enough(factor: float) -> bool:
            changed = codes(old + factor * update) != standing
            return bool(changed.float().mean() >= wanted)

        high = 1.0
        while not enough(high) and high < self.most:
            high *= 2
        if high == 1:
            return high
        low = high / 2
        for _ in range(self.halvings):
            middle = (low + high) / 2
            low, high = (low, middle) if enough(middle) else (middle, high)
        return high
