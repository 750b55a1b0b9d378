"""Weights rounded by least squares as a part of a method."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from dreamquant.recovery.activations import search_range
from dreamquant.recovery.layerwise import Solver
from dreamquant.recovery.part import Recovery
from dreamquant.recovery.stepwise import Walked, branches_of, drawn
from dreamquant.recovery.walk import LayerMet, RangeMet
from dreamquant.synthesis.source import Images
from dreamquant.training.bench import Bench
from dreamquant.training.phase import Phase


@dataclass(frozen=True)
class RoundByLeastSquares(Recovery):
    """Layer by layer, the rounded weights whose outputs come closest to the teacher's.

    What a layer reads comes from the quantized layers before it, what it should give from the
    teacher; where its result enters a sum it corrects the error of the other operand too. The best
    real weights are a ridge regression; they are rounded in GPTQ's order and improved by coordinate
    descent with refitted scales. Biases, or shifts of batch norms, are solved along. No gradients.

    Attributes:
        count: images.
        batch: of them in one forward pass.
        damp: ridge toward the teacher's weights, as a fraction of the mean squared input; 0 lets
            each layer have the one that does best on images it was not found on.
        sweeps: of coordinate descent.
        positions: output positions that are read of each layer, over all images.
        power: of the error that activation ranges minimise; they are set along the way.
        adapt: whether batch norms take the images' own statistics meanwhile: of images that are
            not like those of training, see :mod:`dreamquant.recovery.adapted`.
    """

    weights_by: ClassVar[str] = "least squares on the images, coordinate descent"
    ranges_by: ClassVar[str] = "least error on the images"

    count: int = 256
    batch: int = 64
    damp: float = 0.0
    sweeps: int = 3
    positions: int = 16384
    power: float = 2.0
    adapt: bool = False

    def phases(self, bench: Bench, images: Images | None) -> Iterator[Phase]:
        """One phase, a step for each range and each layer."""
        branches = branches_of(bench)
        solver = Solver(self.damp, self.sweeps, self.positions)

        def act(met: RangeMet | LayerMet) -> None:
            if isinstance(met, RangeMet):
                quantizer = met.quantizer
                quantizer.place(*search_range(met.values, quantizer.grid, self.power))
            else:
                solver.solve(met, bench.student, bench.prepared, branches[met.name])

        name = type(self).__name__
        yield Walked(
            "rounding weights by least squares",
            bench,
            lambda: drawn(bench, images, self.count, self.batch, name),
            branches,
            act,
            adapt=self.adapt,
        )
