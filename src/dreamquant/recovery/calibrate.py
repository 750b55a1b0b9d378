"""Calibration of activation ranges."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import ClassVar

from torch import Tensor, nn

from dreamquant.quantization.scheme import Scheme
from dreamquant.recovery.part import Recovery
from dreamquant.recovery.room import ranges_on
from dreamquant.recovery.stepwise import Walked, drawn, require_steady
from dreamquant.recovery.walk import LayerMet, RangeMet
from dreamquant.synthesis.source import Images
from dreamquant.training.bench import Bench
from dreamquant.training.phase import Phase


@dataclass(frozen=True)
class Calibrate(Recovery):
    """Sets each activation range to the one of least error.

    The error is measured on the outputs of the quantized layers before it.

    Attributes:
        count: number of images.
        batch: images in one forward pass.
        power: exponent of the error: 2 for the mean squared error; 2.4 gives clipping errors more
            weight.
        room: how many times larger a range may become, see :class:`Ranges`.
        adapt: whether batch norms use the images' own statistics during calibration, see
            :mod:`dreamquant.recovery.adapted`.
    """

    ranges_by: ClassVar[str] = "least error on the images"

    count: int = 256
    batch: int = 64
    power: float = 2.0
    room: float = 1.0
    adapt: bool = False

    def suited(self, network: nn.Module, example: Tensor, scheme: Scheme) -> Calibrate:
        """The same, where all layers run for all images.

        Raises:
            NetworkError: which layers run depends on the images.
        """
        self.require_scheme(scheme)
        require_steady(network, example)
        return self

    def phases(self, bench: Bench, images: Images | None) -> Iterator[Phase]:
        """One phase with a step for each activation range."""

        def place(met: RangeMet | LayerMet) -> None:
            assert isinstance(met, RangeMet)
            ranges.place(met)

        @cache
        def batches() -> list[Tensor]:
            return drawn(bench, images, self.count, self.batch, type(self).__name__)

        ranges = ranges_on(bench, batches, self.power, self.room)
        yield Walked(
            "setting activation ranges",
            bench,
            batches,
            {},
            place,
            adapt=self.adapt,
        )
