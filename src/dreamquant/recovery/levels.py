"""The values that a row of weights can take, and the search for the best scale."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from dreamquant.quantization.affine import Grid, affine_parameters

# Fractions of a row's range that are tried: clipping large weights rounds the others more finely.
_FRACTIONS = [fraction / 40 for fraction in range(40, 11, -1)]
# Exponent of the error: above 2, because large errors harm more than their squares say (GENIE,
# BRECQ and QDrop all search scales with it).
POWER = 2.4


class Levels(NamedTuple):
    """Scales and zero-points of rows of weights.

    Attributes:
        scale: (G, O, 1); (1, O, 1) where all groups share them.
        zero_point: of the same shape, whole numbers.
        grid: the codes.
    """

    scale: Tensor
    zero_point: Tensor
    grid: Grid

    def steps(self, rows: Tensor) -> Tensor:
        """The nearest codes of ``rows`` (G, O, K) minus the zero-point, in floating point."""
        codes = (rows / self.scale).round_().add_(self.zero_point)
        return codes.clamp_(self.grid.qmin, self.grid.qmax).sub_(self.zero_point)

    def nearest(self, rows: Tensor) -> Tensor:
        """``rows`` (G, O, K) rounded to their nearest levels."""
        return self.steps(rows).mul_(self.scale)


def search_levels(
    rows: Tensor,
    grid: Grid,
    *,
    symmetric: bool,
    importance: Tensor | None = None,
    shared: bool = False,
) -> Levels:
    """The levels that round each row with the least ``sum of importance * |error|**2.4``.

    Args:
        rows: (G, O, K).
        grid: the codes.
        symmetric: whether the zero-point must be zero.
        importance: (G, 1, K), weight of each input; ``None`` gives all inputs the same weight.
        shared: whether all groups share the scales of their O rows.
    """
    weighing = torch.ones_like(rows) if importance is None else importance.expand_as(rows)
    if shared:
        outputs = rows.shape[1]
        rows, weighing = (each.transpose(0, 1).reshape(1, outputs, -1) for each in (rows, weighing))
    low, high = rows.amin(2, keepdim=True), rows.amax(2, keepdim=True)
    if symmetric:
        high = torch.maximum(-low, high)
        low = -high
    best = _covering(low, high, grid, symmetric)
    least = torch.full_like(low, torch.inf)
    for fraction in _FRACTIONS:
        tried = _covering(fraction * low, fraction * high, grid, symmetric)
        error = (tried.nearest(rows).sub_(rows).abs_().pow_(POWER)).mul_(weighing)
        total = error.sum(2, keepdim=True)
        better = total < least
        least = torch.where(better, total, least)
        best = Levels(
            torch.where(better, tried.scale, best.scale),
            torch.where(better, tried.zero_point, best.zero_point),
            grid,
        )
    return best


def _covering(low: Tensor, high: Tensor, grid: Grid, symmetric: bool) -> Levels:
    scale, zero_point = affine_parameters(low, high, grid)
    # affine_parameters gives a row of zeros a zero-point at the grid's end; symmetric grids need 0.
    return Levels(scale, zero_point.to(scale.dtype) * (not symmetric), grid)
