"""Ranges of activations: those that round what comes with the least error."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dreamquant import distributed
from dreamquant.quantization.affine import Grid, affine_parameters, fake_quantize

# Values of a tensor that the search reads, over all batches.
_SAMPLED = 2**17
_FRACTIONS = [fraction / 40 for fraction in range(40, 3, -1)]


@torch.no_grad()
def sampled(values: Sequence[Tensor]) -> Tensor:
    """At most ``_SAMPLED`` values over all tensors, as many of each, float32."""
    total = sum(x.numel() for x in values)
    # Odd, else it would meet the same few columns of every feature map.
    stride = max(1, total // _SAMPLED) | 1
    return torch.cat([x.reshape(-1)[::stride].float() for x in values])


@torch.no_grad()
def search_range(values: Sequence[Tensor], grid: Grid, power: float) -> tuple[Tensor, Tensor]:
    """Scale and zero-point that quantize a tensor with the least mean of ``|error|**power``.

    First both ends shrink together, then each on its own.

    Args:
        values: the tensor on several batches.
        grid: the codes.
        power: 2 is the mean squared error; 2.4 minds large errors more.

    Returns:
        Scalars, as :func:`affine_parameters` gives them.
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
    """The pair of ends that rounds ``values`` with the least error."""
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
