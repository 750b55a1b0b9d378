"""Statistics of rounding at each site: range, clipped fraction, SQNR and histogram."""

from __future__ import annotations

import math
from collections.abc import Iterable
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from dreamquant.evaluation.sites import Site, quantizer_of, rounded_weight
from dreamquant.networks.outputs import as_one
from dreamquant.quantization.affine import Grid
from dreamquant.quantization.quantizers import ActivationQuantizer
from dreamquant.quantization.student import Student

_BINS = 128  # number of bins of a histogram; one bin for each code if there are more codes


class Tally:
    """Statistics of values that are rounded to a grid, summed over batches.

    Args:
        grid: lowest and highest code.
    """

    def __init__(self, grid: Grid) -> None:
        self.grid = grid
        self.count = self.zeros = self.below = self.above = 0
        self.low, self.high = math.inf, -math.inf
        self.signal = self.noise = 0.0
        self.bins = torch.zeros(max(_BINS, grid.levels + 1), dtype=torch.float64)

    @torch.no_grad()
    def add(self, x: Tensor, result: Tensor, scale: Tensor, zero_point: Tensor) -> None:
        """Add values.

        Args:
            x: values before rounding, any shape.
            result: values after rounding, same shape.
            scale: scale of the grid, broadcastable to ``x``.
            zero_point: zero-point of the grid, broadcastable to ``x``.
        """
        low, high = x.aminmax()
        self.low, self.high = min(self.low, low.item()), max(self.high, high.item())
        self.count += x.numel()
        self.zeros += int((x == 0).sum())
        self.signal += x.square().sum(dtype=torch.float64).item()
        self.noise += (result - x).square().sum(dtype=torch.float64).item()
        # In units of the scale, so that codes are integers.
        steps = (x / scale).add_(zero_point)
        first, last = self.grid.qmin - 0.5, self.grid.qmax + 0.5
        self.below += int((steps < first).sum())
        self.above += int((steps > last).sum())
        # Exact zeros are left out: ReLUs make so many that other bins could not be seen.
        self.bins += torch.histc(steps[x != 0].float(), len(self.bins), first, last).cpu()

    @property
    def sqnr(self) -> float | None:
        """Signal-to-quantization-noise ratio in dB; ``None`` if a part is 0 or not finite."""
        return decibels(self.signal, self.noise)

    def as_json(self) -> dict[str, Any]:
        """Plain values; the histogram reaches half a step beyond the lowest and highest code."""
        count = max(self.count, 1)
        return {
            "values": self.count,
            "low": _finite(self.low),
            "high": _finite(self.high),
            "zeros": self.zeros / count,
            "below": self.below / count,
            "above": self.above / count,
            "sqnr": self.sqnr,
            "qmin": self.grid.qmin,
            "qmax": self.grid.qmax,
            "histogram": [int(count) for count in self.bins.tolist()],
        }


def weight_tallies(teacher: nn.Module, student: Student) -> dict[str, Tally]:
    """Statistics of the teacher's weights by layer, rounded like the student's before training.

    The noise shows the cost of these bits before training. Range, clipping and histogram are those
    of the teacher's weights on the final grid of the student.
    """
    found = {}
    for name, (latent, quantizer) in student.quantized_weights().items():
        tally = Tally(quantizer.grid)
        weight = teacher.get_submodule(name).weight
        assert isinstance(weight, Tensor)
        rounded = rounded_weight(teacher, student, name)
        tally.add(weight, rounded, *quantizer.parameters_of(latent))
        found[name] = tally
    return found


@torch.no_grad()
def activation_tallies(
    student: Student, sites: Iterable[Site], batches: Iterable[Tensor]
) -> tuple[dict[Site, Tally], Tensor]:
    """Statistics of the inputs of the student's activation quantizers, and its outputs (N, ...).

    Args:
        student: a finished student with frozen ranges.
        sites: sites of kind ``input`` or ``relu``.
        batches: images (B, C, H, W) each, N in total.
    """
    quantizers = {site: quantizer_of(student, site) for site in sites}
    tallies = {site: Tally(quantizer.grid) for site, quantizer in quantizers.items()}

    def hook(quantizer: ActivationQuantizer, tally: Tally) -> Any:
        def count(_: nn.Module, inputs: tuple[Tensor, ...], result: Tensor) -> None:
            tally.add(inputs[0], result, quantizer.scale, quantizer.zero_point)

        return quantizer.register_forward_hook(count)

    with ExitStack() as stack:
        for site, tally in tallies.items():
            stack.callback(hook(quantizers[site], tally).remove)
        logits = torch.cat([as_one(student(images)).float() for images in batches])
    return tallies, logits


def decibels(signal: float, noise: float) -> float | None:
    """``10 log10(signal / noise)``; ``None`` if signal or noise is 0 or not finite."""
    if not (0 < signal < math.inf and 0 < noise < math.inf):
        return None
    return 10 * math.log10(signal / noise)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
