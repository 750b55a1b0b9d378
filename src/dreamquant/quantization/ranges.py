"""Ranges: which real values a quantizer covers, estimated from what it sees."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dreamquant import processes


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
        outward = processes.largest(outward)
        self.weights.mul_(self.momentum).add_(1)
        self.average.lerp_(outward * outward.new_tensor([-1.0, 1.0]), 1 / self.weights)

    def read(self) -> tuple[Tensor, Tensor]:
        """``(low, high)`` as scalars; zeros before the first update."""
        low, high = self.average.clone()
        return low, high


def per_channel_range(weight: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """Smallest and largest weight of each channel, two vectors as long as ``axis``."""
    flat = weight.detach().movedim(axis, 0).flatten(1)
    return flat.amin(1), flat.amax(1)
