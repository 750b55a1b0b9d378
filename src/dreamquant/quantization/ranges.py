"""Ranges: which real values a quantizer covers, estimated from what it sees."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dreamquant import distributed
from dreamquant.quantization.affine import Grid, affine_parameters, fake_quantize

_TWENTIETHS = 20, 3, -1  # shares of a range that are tried: 20, 19, ... 4 twentieths
_AT_ONCE = 2**16  # values that are rounded at once: they stay in the processor's cache
_SAMPLED = 2**14


class MovingRange(nn.Module):
    """Bias-corrected exponential moving average of a tensor's smallest and largest value.

    After n updates the i-th batch counts ``momentum**(n - i)``, divided by the sum of all these
    weights. That sum is kept beside the average, so that a constant input yields exactly its
    range from the first update on. The quantizer shared by the GDFQ family feeds the corrected
    value back into the raw average, and overshoots about a thousandfold around the twentieth
    update.

    Args:
        momentum: weight of the past, in [0, 1).
    """

    average: Tensor
    weights: Tensor

    def __init__(self, momentum: float) -> None:
        super().__init__()
        self.momentum = momentum
        self.register_buffer("average", torch.zeros(2))
        self.register_buffer("weights", torch.zeros(()))

    @torch.no_grad()
    def update(self, x: Tensor) -> None:
        """Take the range of one batch, over all processes, into the average."""
        low, high = x.aminmax()
        outward = torch.stack([-low, high]).to(self.average.dtype)
        # Else each process would settle on ranges of its own, and train another student.
        outward = distributed.largest(outward)
        self.weights.mul_(self.momentum).add_(1)
        self.average.lerp_(outward * outward.new_tensor([-1.0, 1.0]), 1 / self.weights)

    def read(self) -> tuple[Tensor, Tensor]:
        """``(low, high)`` as scalars; zeros before the first update."""
        low, high = self.average.clone()
        return low, high


def per_channel_range(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Smallest and largest weight of each channel (channels,), of a row (channels, values) each."""
    flat = rows.detach()
    return flat.amin(1), flat.amax(1)


@torch.no_grad()
def least_squares(rows: Tensor, low: Tensor, high: Tensor, grid: Grid) -> tuple[Tensor, Tensor]:
    """Scale and zero-point that round each row with the least squared error.

    Args:
        rows: (N, values); where processes are together, each holds a part of every row.
        low: (N,), smallest value to cover. Shares of the range down to a fifth are tried.
        high: (N,), largest.
        grid: the codes to use.

    Returns:
        ``(scale, zero_point)`` as :func:`affine_parameters` gives them, (N,) each.
    """
    shares = torch.arange(*_TWENTIETHS, device=low.device).to(low).unsqueeze(1) / 20
    scales, zero_points = affine_parameters(shares * low, shares * high, grid)
    together = max(_AT_ONCE // (len(shares) * rows.shape[1]), 1)
    split = [torch.split(x, together, -1) for x in (scales, zero_points)]
    parts = zip(torch.split(rows, together), *split, strict=True)
    errors = torch.cat([_rounding_errors(rows, s, z, grid) for rows, s, z in parts], 1)
    best = distributed.mean(errors).argmin(0, keepdim=True)
    return scales.gather(0, best)[0], zero_points.gather(0, best)[0]


def _rounding_errors(rows: Tensor, scale: Tensor, zero_point: Tensor, grid: Grid) -> Tensor:
    """Mean squared error (shares, N) of rows (N, values), for scales of (shares, N)."""
    together = max(_AT_ONCE // rows.numel(), 1)
    split = [torch.split(x, together) for x in (scale, zero_point)]
    return torch.cat([_errors_at_once(rows, s, z, grid) for s, z in zip(*split, strict=True)])


def _errors_at_once(rows: Tensor, scale: Tensor, zero_point: Tensor, grid: Grid) -> Tensor:
    parameters = scale.unsqueeze(2), zero_point.unsqueeze(2)
    rounded = fake_quantize(rows, *parameters, grid, clipped_gradient=False)
    # As a matrix: what looks for poolings of feature maps takes no mean of one for that.
    return (rounded - rows).flatten(0, 1).square().mean(1).view(scale.shape)


def sample(x: Tensor) -> Tensor:
    """Thousands of a batch's values (1, values), as many of each image.

    Args:
        x: (B, ...); where processes are together, each samples its own images.
    """
    # Odd, else it would meet the same few columns of every feature map.
    stride = x.numel() * distributed.count() // _SAMPLED | 1
    return x.detach().reshape(len(x), -1)[:, ::stride].reshape(1, -1)
