"""Rounding of weights by least squares."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import ClassVar

from torch import Tensor, nn

from dreamquant.quantization.scheme import Scheme
from dreamquant.recovery.as_run import require_products
from dreamquant.recovery.layerwise import Solver
from dreamquant.recovery.part import Recovery
from dreamquant.recovery.room import ranges_on
from dreamquant.recovery.stepwise import Walked, branches_of, drawn, require_steady
from dreamquant.recovery.walk import LayerMet, RangeMet
from dreamquant.synthesis.source import Images
from dreamquant.training.bench import Bench
from dreamquant.training.phase import Phase


@dataclass(frozen=True)
class RoundByLeastSquares(Recovery):
    """Chooses, layer by layer, the rounded weights whose outputs are closest to the teacher's.

    A layer reads the outputs of the quantized layers before it, and its target is the output of the
    teacher's layer. Where its output enters a sum, it corrects the error of the other operand too.
    The best real weights are the solution of a ridge regression; they are rounded in GPTQ's order
    and then improved by coordinate descent with refitted scales. Biases, or the means of batch
    norms, are solved for at the same time. No gradients are needed.

    Attributes:
        count: number of images.
        batch: images in one forward pass.
        damp: strength of the ridge toward the teacher's weights, as a fraction of the mean squared
            input; 0 chooses it for each layer by the error on images that were held out.
        sweeps: sweeps of coordinate descent.
        positions: number of output positions that are read of each layer, over all images.
        power: exponent of the error that activation ranges minimise; ranges are set in the same
            walk.
        room: how many times larger a range may become, see :class:`Ranges`.
        adapt: whether batch norms use the images' own statistics meanwhile. It helps where images
            differ from training data, see :mod:`dreamquant.recovery.adapted`.
    """

    weights_by: ClassVar[str] = "least squares on the images, coordinate descent"
    ranges_by: ClassVar[str] = "least error on the images"

    count: int = 256
    batch: int = 64
    damp: float = 0.0
    sweeps: int = 3
    positions: int = 16384
    power: float = 2.0
    room: float = 1.0
    adapt: bool = False

    def suited(self, network: nn.Module, example: Tensor, scheme: Scheme) -> RoundByLeastSquares:
        """The same, where every layer multiplies by its weight.

        Raises:
            NetworkError: a layer computes with another tensor than its weight, or which layers run
                depends on the images.
        """
        self.require_scheme(scheme)
        require_products(network, example)
        require_steady(network, example)
        return self

    def phases(self, bench: Bench, images: Images | None) -> Iterator[Phase]:
        """One phase with a step for each activation range and each layer."""
        branches = branches_of(bench)
        solver = Solver(self.damp, self.sweeps, self.positions)

        def act(met: RangeMet | LayerMet) -> None:
            if isinstance(met, RangeMet):
                ranges.place(met)
            else:
                solver.solve(met, bench.student, bench.prepared, branches[met.name])

        @cache
        def batches() -> list[Tensor]:
            return drawn(bench, images, self.count, self.batch, type(self).__name__)

        ranges = ranges_on(bench, batches, self.power, self.room)
        yield Walked(
            "rounding weights by least squares",
            bench,
            batches,
            branches,
            act,
            adapt=self.adapt,
        )
