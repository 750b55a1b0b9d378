"""Ranges: which real values a quantizer covers, estimated from what it sees."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class MovingRange(nn.Module):
    """Exponential moving average of a tensor's smallest and largest value.

    The average is kept raw and divided by ``1 - momentum**updates`` when read (as Adam does), so
    a constant input yields exactly its range from the first update on. The quantizer shared by
    the GDFQ family feeds the corrected value back into the average, and overshoots about a
    thousandfold around the twentieth update.

    Args:
        momentum: weight of the past, in [0, 1).
    """

    raw: Tensor
    updates: Tensor

    def __init__(self, momentum: float) -> None:
        super().__init__()
        self.momentum = momentum
        self.register_buffer("raw", torch.zeros(2))
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def update(self, x: Tensor) -> None:
        """Take the range of one batch into the average."""
        self.raw.lerp_(torch.stack(x.aminmax()).to(self.raw.dtype), 1 - self.momentum)
        self.updates += 1

    def read(self) -> tuple[Tensor, Tensor]:
        """``(low, high)`` as scalars; zeros before the first update."""
        weight = (1 - self.momentum**self.updates).clamp(min=1e-12)
        low, high = self.raw / weight
        return low, high


def per_channel_range(weight: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """Smallest and largest weight of each channel, two vectors as long as ``axis``."""
    flat = weight.detach().movedim(axis, 0).flatten(1)
    return flat.amin(1), flat.amax(1)
