"""Structural similarity of vectors (Wang et al., IEEE TIP 2004), one window over each vector."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

_C1, _C2 = 0.01**2, 0.03**2


class Similarity(NamedTuple):
    """Similarities of pairs, (...).

    Attributes:
        whole: luminance, contrast and structure together: SSIM, in [-1, 1].
        structure: covariance over the product of deviations, in [-1, 1].
    """

    whole: Tensor
    structure: Tensor


def scaled(x: Tensor) -> Tensor:
    """``x`` (..., n), each row scaled to [0, 1]; a constant row becomes 0."""
    low, high = x.amin(-1, keepdim=True), x.amax(-1, keepdim=True)
    return (x - low) / (high - low).clamp(min=1e-6)


def similarity(x: Tensor, y: Tensor) -> Similarity:
    """Similarities of the rows of ``x`` and ``y``, both (..., n) with values in about [0, 1]."""
    mean_x, mean_y = x.mean(-1), y.mean(-1)
    from_x, from_y = x - mean_x[..., None], y - mean_y[..., None]
    var_x, var_y = from_x.square().mean(-1), from_y.square().mean(-1)
    covariance = (from_x * from_y).mean(-1)
    luminance = (2 * mean_x * mean_y + _C1) / (mean_x.square() + mean_y.square() + _C1)
    both = (2 * covariance + _C2) / (var_x + var_y + _C2)
    deviations = (var_x * var_y).clamp(min=1e-12).sqrt()
    return Similarity(luminance * both, (covariance + _C2 / 2) / (deviations + _C2 / 2))
