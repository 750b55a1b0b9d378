"""Smooth images: the norms of differences between neighbouring pixels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from dreamquant.terms.contract import Step, Term

# Number of values in the batches of the papers: 32 images of 3 x 224 x 224.
_PUBLISHED = 32 * 3 * 224 * 224


def total_variation(images: Tensor, diagonal: float = 1.0) -> Tensor:
    """``||→||₂ + ||↓||₂ + d·(||↗||₂ + ||↘||₂)`` of a whole batch (B, C, H, W), a scalar.

    Args:
        images: in any units.
        diagonal: d, the weight of the two diagonal directions.
    """
    across, down, *slanted = [d.square().sum().sqrt() for d in _differences(images)]
    return across + down + diagonal * (slanted[0] + slanted[1])


def _differences(x: Tensor) -> Iterator[Tensor]:
    yield x[..., :, :-1] - x[..., :, 1:]
    yield x[..., :-1, :] - x[..., 1:, :]
    yield x[..., 1:, :-1] - x[..., :-1, 1:]
    yield x[..., :-1, :-1] - x[..., 1:, 1:]


@dataclass(frozen=True)
class TotalVariation(Term):
    """``TV(x)`` of the batch, its diagonals divided by √2 (MimiQ, MaskAQ)."""

    formula = "||→||₂ + ||↓||₂ + (||↗||₂ + ||↘||₂)/√2, arrows the differences of neighbours"

    def __call__(self, step: Step) -> Tensor:
        """The sum of norms, a scalar >= 0."""
        return total_variation(step.images, 0.5**0.5)


@dataclass(frozen=True)
class TotalVariationTo(Term):
    """``|TV(x) - u|``: images are neither noise nor constant (PSAQ-ViT).

    The norms grow with the root of the number of pixels. The bounds, which hold for 32 images of
    224 pixels, are therefore scaled by this root, and u is the middle of them.

    Attributes:
        lower: lower bound of u in the paper, which draws it.
        upper: upper bound.
    """

    lower: float = 2500.0
    upper: float = 3000.0
    formula = "|TV(x) - (u_l + u_u)/2 · √(BCHW / (32·3·224²))|"

    def __call__(self, step: Step) -> Tensor:
        """The distance, a scalar >= 0."""
        wanted = (self.lower + self.upper) / 2 * (step.images.numel() / _PUBLISHED) ** 0.5
        return torch.abs(total_variation(step.images) - wanted)
