"""Mean and variance of channels, over a batch or for each image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn


class ChannelStatistics(NamedTuple):
    """Mean and biased variance per channel, each (F,)."""

    mean: Tensor
    var: Tensor


def full_precision(x: Tensor) -> Tensor:
    """Convert half precision to float32; float32 and float64 stay unchanged."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


class _ChannelMoments(torch.autograd.Function):
    # torch.var_mean takes 2.9 ms, these passes take 0.2 ms (32 x 16 x 32 x 32, one core). The
    # derivative of torch.var_mean consists of four operations.

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        over = (0, *range(2, x.dim()))
        # Sums and statistics of half-precision inputs are float32.
        mean = x.mean(over, dtype=torch.promote_types(x.dtype, torch.float32))
        ctx.save_for_backward(x, mean)
        return mean, (x - _per_channel(mean, x)).square_().mean(over)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (to_mean, to_var), (x, mean) = gradients, ctx.saved_tensors
        count = x.numel() // x.shape[1]
        slope = 2 * to_var / count
        offset = to_mean / count - slope * mean
        return torch.addcmul(_per_channel(offset, x), x, _per_channel(slope, x)).to(x.dtype)


def channel_statistics(x: Tensor) -> ChannelStatistics:
    """Mean and biased variance of each channel of ``x`` (B, F, ...), float32, with a gradient."""
    return ChannelStatistics(*_ChannelMoments.apply(x))


def _per_channel(values: Tensor, x: Tensor) -> Tensor:
    return values.view(-1, *[1] * (x.dim() - 2))


def image_statistics(x: Tensor) -> ChannelStatistics:
    """Mean and biased variance of the channels of each image of ``x`` (B, F, ...): (B, F) each."""
    over = tuple(range(2, x.dim()))
    var, mean = torch.var_mean(full_precision(x), over, correction=0)
    return ChannelStatistics(mean, var)


@contextmanager
def batch_statistics(norms: Sequence[nn.Module]) -> Iterator[None]:
    """Let batch norms normalise with the statistics of the batch, as in training.

    They also update their running statistics. To keep these, call the network functionally with
    copies of its buffers.
    """
    before = [norm.training for norm in norms]
    for norm in norms:
        norm.training = True
    try:
        yield
    finally:
        for norm, training in zip(norms, before, strict=True):
            norm.training = training
