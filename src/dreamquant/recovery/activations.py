"""Activation ranges: the range of each tensor that rounds its values with the least error."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dreamquant import distributed
from dreamquant.quantization.affine import Grid, affine_parameters, fake_quantize

# Number of values that the search reads of each tensor, over all batches.
_SAMPLED = 2**17
_FRACTIONS = [fraction / 40 for fraction in range(40, 3, -1)]


@torch.no_grad()
def sampled(values: Sequence[Tensor]) -> Tensor:
    """A sample of at most ``_SAMPLED`` values, float32, with equally many from each tensor."""
    total = sum(x.numel() for x in values)
    # The stride is odd: an even one would read the same few columns of every feature map.
    stride = max(1, total // _SAMPLED) | 1
    return torch.cat([x.reshape(-1)[::stride].float() for x in values])


@torch.no_grad()
def search_range(values: Sequence[Tensor], grid: Grid, power: float) -> tuple[Tensor, Tensor]:
    """Scale and zero-point that quantize a tensor with the least mean of ``|error|**power``.

    The search first shrinks both ends of the range together, then each end on its own.

    Args:
        values: the tensor, as it is on several batches.
        grid: the codes.
        power: 2 minimises the mean squared error; 2.4 gives large errors more weight.

    Returns:
        Scale and zero-point, scalars, as :func:`affine_parameters` returns them.
    """
    ends = torch.stack([torch.stack(x.aminmax()) for x in values]).float()
    low, high = -distributed.largest(-ends[:, 0].amin()), distributed.largest(ends[:, 1].amax())
    rows = sampled(values)
    fractions = rows.new_tensor(_FRACTIONS)
    best = _best(rows, fractions * low, fractions * high, grid, power)
    if low < 0 < high:
        best = _best(rows, best[0].expand_as(fractions), fractions * high, grid, power)
        best = _best(rows, fractions * low, best[1].expand_as(fractions), grid, power)
    return affine_parameters(*best, grid)


def _best(
    values: Tensor, lows: Tensor, highs: Tensor, grid: Grid, power: float
) -> tuple[Tensor, Tensor]:
    """The pair of ends that quantizes ``values`` with the least error."""
    scales, zero_points = affine_parameters(lows, highs, grid)
    errors = torch.stack(
        [
            (fake_quantize(values, scale, zero_point, grid, clipped_gradient=False) - values)
            .abs_()
            .pow_(power)
            .mean()
            for scale, zero_point in zip(scales, zero_points, strict=True)
        ]
    )
    best = distributed.mean(errors).argmin()
    return lows[best], highs[best]
