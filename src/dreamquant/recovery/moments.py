"""Moments of clipped normals: mean and variance of an activation's output after a batch norm."""

from __future__ import annotations

import math

import torch
from torch import Tensor

_SMALLEST_DEVIATION = 1e-12


def clipped_normal(
    mean: Tensor, deviation: Tensor, low: float | Tensor, high: float | Tensor
) -> tuple[Tensor, Tensor]:
    """Mean and variance of ``x.clamp(low, high)`` for normal ``x``.

    With ``low=0`` they are those of a ReLU's output, with ``high=6`` too those of a ReLU6's (Nagel
    et al., ICCV 2019, appendix C, gives the mean).

    Args:
        mean: of each channel, (F,).
        deviation: (F,), not negative.
        low: lower end; ``-inf`` for none.
        high: upper end, at least ``low``; ``inf`` for none.

    Returns:
        Both (F,), float64.
    """
    mean, deviation = mean.double(), deviation.double().clamp(min=_SMALLEST_DEVIATION)
    low, high = (torch.as_tensor(end, dtype=mean.dtype, device=mean.device) for end in (low, high))
    alpha, omega = (low - mean) / deviation, (high - mean) / deviation
    below, above = torch.special.ndtr(alpha), torch.special.ndtr(-omega)
    inside = (1 - below - above).clamp(min=0)
    density_low, density_high = _density(alpha), _density(omega)
    drop = density_low - density_high
    first = deviation * drop + mean * inside + _mass(low, below) + _mass(high, above)
    second = (
        (mean.square() + deviation.square()) * inside
        + 2 * mean * deviation * drop
        + deviation.square() * (_mass(alpha, density_low) - _mass(omega, density_high))
        + _mass(low.square(), below)
        + _mass(high.square(), above)
    )
    return first, (second - first.square()).clamp(min=0)


def _density(x: Tensor) -> Tensor:
    return torch.exp(-x.square() / 2) / math.sqrt(2 * math.pi)


def _mass(value: Tensor, weight: Tensor) -> Tensor:
    """``value * weight``, and zero where the weight is zero and the value infinite."""
    return torch.where(weight == 0, 0, value * weight)
