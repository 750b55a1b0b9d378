"""A generator that is guided by calibration images, one for each class (TexQ, NeurIPS 2023)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor

from dreamquant.networks.norm_inputs import BatchNormInputs
from dreamquant.networks.taps import Tap
from dreamquant.synthesis.generator import Generator, Stream
from dreamquant.synthesis.pixels import Dreaming, PixelPool, Pixels
from dreamquant.synthesis.source import Source
from dreamquant.terms.centres import CALIBRATION, centre_of
from dreamquant.terms.contract import Terms
from dreamquant.training.batch import Batch, Request
from dreamquant.training.bench import Bench
from dreamquant.training.phase import Phase
from dreamquant.training.turns import require_equal_parts

_STATISTICS = BatchNormInputs(per_image=True)


@dataclass(frozen=True)
class Calibrated(Source):
    """Optimises an image for each class; a generator then learns from their statistics.

    The generator's terms read the statistics as the condition ``calibration centre``.

    Attributes:
        calibration: source of these images; the network's number of classes is the number of
            images.
        generator: source of the student's images.
    """

    calibration: Pixels
    generator: Generator

    @property
    def terms(self) -> Terms:  # type: ignore[override]
        """The generator's terms."""
        return self.generator.terms

    @property
    def teacher_taps(self) -> tuple[Tap[Any], ...]:
        """Taps that either source reads inside the teacher."""
        taps = (*self.calibration.teacher_taps, *self.generator.teacher_taps, _STATISTICS)
        return tuple(dict.fromkeys(taps))

    @property
    def group(self) -> int:  # type: ignore[override]
        """The generator's group."""
        return self.generator.group

    @property
    def iterations(self) -> int:
        """Iterations in which only the generator learns; calibration images do not count."""
        return self.generator.iterations

    def stretched(self, ratio: float) -> Calibrated:
        """The same with ``ratio`` times as many iterations of both."""
        return replace(
            self,
            calibration=self.calibration.stretched(ratio),
            generator=self.generator.stretched(ratio),
        )

    def open(self, bench: Bench, updates: int) -> CalibratedStream:
        """A generator with new weights, before any calibration image exists."""
        require_equal_parts(self.generator.batch, bench.parts, self.group)
        return CalibratedStream(self, bench, self.generator.alone + updates)


class CalibratedStream(Stream):
    """A generator's images, with the statistics of calibration images as their condition.

    Args:
        source: the numbers of both sources.
        bench: networks, random generators and device of the run.
        updates: number of updates of the generator in the whole run.
    """

    def __init__(self, source: Calibrated, bench: Bench, updates: int) -> None:
        super().__init__(source.generator, bench, updates)
        size = bench.input.num_classes
        self.calibration = CalibrationPool(replace(source.calibration, size=size), bench)

    @property
    def ready(self) -> bool:
        """Whether every class has its calibration image."""
        return len(self.calibration.targets) == self.calibration.size

    def phases(self) -> Iterator[Phase]:
        """Calibration images are optimised; then the generator learns alone."""
        yield from self.calibration.phases()
        yield from super().phases()

    def make(self, request: Request) -> Batch:
        """Images, with the statistics of their classes among the conditions."""
        batch = super().make(request)
        targets = batch.targets
        labels = targets if targets.dim() == 1 else targets.argmax(1)
        conditions = {**batch.conditions, CALIBRATION: self._centres[labels]}
        return replace(batch, conditions=conditions)

    @cached_property
    def _centres(self) -> Tensor:
        """Statistics of each class's calibration image (classes, 2 F)."""
        images, teacher = self.calibration.images, self.bench.players.teacher
        with torch.no_grad():
            read = [teacher.read(few, compiled=False)[1] for few in torch.split(images, 32)]
        return torch.cat([centre_of(values[_STATISTICS]) for values in read])

    def state_dict(self) -> dict[str, Any]:
        """The state of the generator, and the calibration images."""
        return {**super().state_dict(), "calibration": self.calibration.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over a state from :meth:`state_dict`."""
        super().load_state_dict(state)
        self.calibration.load_state_dict(state["calibration"])


class CalibrationPool(PixelPool):
    """One image of each class, in the order of the classes."""

    def phases(self) -> Iterator[Phase]:
        """One phase for each batch; the targets continue from batch to batch."""
        for phase in super().phases():
            assert isinstance(phase, Dreaming)
            phase.source = replace(phase.source, targets=InTurn(phase.first))
            yield phase


@dataclass(frozen=True)
class InTurn:
    """Labels in ascending order.

    Attributes:
        first: the first label.
    """

    first: int = 0
    copies: ClassVar[int] = 1

    def sample(self, batch: int, classes: int, random: torch.Generator) -> Tensor:
        """Labels (batch,), int64, on the device of ``random``; none is drawn."""
        return (self.first + torch.arange(batch, device=random.device)) % classes
