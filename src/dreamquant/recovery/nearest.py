"""Rounding of weights to nearest, on the scales of least rounding error."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, cast

import torch

from dreamquant.recovery.layerwise import put_weight
from dreamquant.recovery.levels import search_levels
from dreamquant.recovery.part import Recovery
from dreamquant.recovery.unfold import Layer, weight_rows
from dreamquant.synthesis.source import Images
from dreamquant.training.bench import Bench
from dreamquant.training.losses import Losses
from dreamquant.training.phase import Phase


@dataclass(frozen=True)
class RoundToNearest(Recovery):
    """Gives each channel the scale of least ``sum of |error|**2.4``, and rounds to nearest.

    Block reconstruction starts from these weights (BRECQ, QDrop, GENIE). No images are needed.
    """

    weights_by: ClassVar[str] = "least error, rounded to nearest"

    def phases(self, bench: Bench, images: Images | None) -> Iterator[Phase]:
        """One phase with a step for each layer."""
        yield _Rounding(bench)


class _Rounding(Phase):
    name = "rounding weights to nearest"

    def __init__(self, bench: Bench) -> None:
        super().__init__()
        self.bench = bench
        self.weights = list(bench.student.quantized_weights().items())
        self.total = len(self.weights)

    @torch.no_grad()
    def step(self) -> Losses:
        """Round one layer."""
        name, weight = self.weights[self.done]
        layer = cast(Layer, self.bench.prepared.get_submodule(name))
        rows, quantizer = weight_rows(layer.weight, layer), weight.quantizer
        shared = quantizer.start.numel() < rows.shape[0] * rows.shape[1]
        levels = search_levels(rows, quantizer.grid, symmetric=quantizer.symmetric, shared=shared)
        put_weight(weight, layer, levels.nearest(rows), levels)
        return {}
