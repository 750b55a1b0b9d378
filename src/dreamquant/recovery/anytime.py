"""Stages that each train a student; the run keeps the best one and may end after any stage."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from torch import Tensor, nn

from dreamquant.errors import NetworkError, SchemeError
from dreamquant.networks.taps import Tap
from dreamquant.quantization.scheme import Scheme
from dreamquant.recovery.course import Beginning, Course, Judging
from dreamquant.recovery.part import Recovery
from dreamquant.synthesis.source import Images, Source
from dreamquant.training.bench import Bench
from dreamquant.training.phase import Phase

_MOST = 8  # a stage takes at most so many times its steps: more do not improve the student


@dataclass(frozen=True)
class Stage:
    """One way to train a student.

    Attributes:
        name: shown to the user.
        recovery: recovery parts, in this order.
        images: source of new images for them; ``None`` uses the images of the stage before.
        anew: whether the student starts from its first state; otherwise from the best state so far.
        fraction: the part of the remaining time that steps which can be stretched may take.
        pictures: whether the stage is only for inputs that are pixels.
    """

    name: str
    recovery: tuple[Recovery, ...]
    images: Source | None = None
    anew: bool = True
    fraction: float = 0.5
    pictures: bool = False

    @property
    def parts(self) -> tuple[Source | Recovery, ...]:
        """The image source and the recovery parts."""
        return (*(() if self.images is None else (self.images,)), *self.recovery)

    @property
    def teacher_taps(self) -> tuple[Tap[Any], ...]:
        """Taps that its parts read inside the teacher."""
        return tuple(tap for part in self.parts for tap in part.teacher_taps)

    def for_any_output(self) -> Stage:
        """The same for networks that are not classifiers."""
        images = None if self.images is None else self.images.for_any_output()
        return replace(
            self, images=images, recovery=tuple(part.for_any_output() for part in self.recovery)
        )

    def stretched(self, ratio: float) -> Stage:
        """The same with ``ratio`` times as many iterations."""
        images = None if self.images is None else self.images.stretched(ratio)
        recovery = tuple(part.stretched(ratio) for part in self.recovery)
        return replace(self, images=images, recovery=recovery)


@dataclass(frozen=True)
class Anytime(Recovery):
    """Runs stages one after another, and keeps the student that agrees best with the teacher.

    Agreement is the share of the variance of the teacher's outputs that the student's explain
    (:class:`Explained`), on probe images that no stage uses: never on a stage's own images, which
    could favour its own student, and never on the user's images. If a budget or Ctrl-C ends the
    run, the run returns the best student so far.

    Attributes:
        stages: the stages, from the fastest to the slowest.
        judged_on: number of probe images.
        batch: images in one forward pass.
        enough: agreement in percent; once it is reached, no further stage begins.
        enough_at_8: the same where weights and activations have 8 bits. Of MobileNetV1 (86.0 % on
            200 photographs), the student of the first stage has 84.0 % at an agreement of 80, that
            of the second 86.0 % at 96; of EfficientNet-Lite0 (86.5 %), both have 86.5 %, at 89 and
            96.
        left_out: names of stages that cannot run on this network, each with the reason.
    """

    weights_by: ClassVar[str] = "by the best of several stages"
    ranges_by: ClassVar[str] = "least error on the images"
    paces_itself: ClassVar[bool] = True

    stages: tuple[Stage, ...] = ()
    judged_on: int = 256
    batch: int = 32
    enough: float = 99.0
    enough_at_8: float = 85.0
    left_out: tuple[tuple[str, str], ...] = ()

    @property
    def iterations(self) -> int:
        """Number of steps of all stages."""
        return sum(part.iterations for stage in self.stages for part in stage.parts)

    def stretched(self, ratio: float) -> Anytime:
        """The same with ``ratio`` times as many iterations in each stage."""
        return replace(self, stages=tuple(stage.stretched(ratio) for stage in self.stages))

    @property
    def teacher_taps(self) -> tuple[Tap[Any], ...]:
        """Taps of all stages."""
        return tuple(tap for stage in self.stages for tap in stage.teacher_taps)

    def suited(self, network: nn.Module, example: Tensor, scheme: Scheme) -> Anytime:
        """The same without stages that the network or the scheme does not support, and with what
        is enough at its bits.

        Raises:
            NetworkError: the network does not support the first stage.
            SchemeError: the scheme does not.
        """
        kept: list[Stage] = []
        left_out: list[tuple[str, str]] = []
        for part in self.stages[0].recovery:
            part.suited(network, example, scheme)  # what the first stage lacks, all lack
        for before, stage in zip((None, *self.stages), self.stages, strict=False):
            lack = _lack(stage, network, example, scheme)
            if stage.images is None and before is not None and before not in kept:
                lack = f"it uses the images of {before.name!r}"
            if lack is None:
                kept.append(stage)
            else:
                left_out.append((stage.name, lack))
        eight = scheme.bits.weight == scheme.bits.activation == 8
        enough = self.enough_at_8 if eight else self.enough
        return replace(self, stages=tuple(kept), left_out=tuple(left_out), enough=enough)

    def for_any_output(self) -> Anytime:
        """The same for networks that are not classifiers."""
        return replace(self, stages=tuple(stage.for_any_output() for stage in self.stages))

    def for_features(self) -> Anytime:
        """The same without stages that are only for pictures."""
        kept = tuple(stage for stage in self.stages if not stage.pictures)
        left_out = tuple((s.name, "it is only for pictures") for s in self.stages if s.pictures)
        return replace(self, stages=kept, left_out=(*self.left_out, *left_out))

    def phases(self, bench: Bench, images: Images | None) -> Iterator[Phase]:
        """For each stage: phases of its images, its start, its recovery, and the measurement."""
        course = Course(bench)
        bench.keep("course", course)
        for turn, stage in enumerate(self.stages):
            if course.best_of(turn) >= self.enough:
                return
            if stage.images is not None:
                images = stage.images.open(bench, 0)
                bench.keep(f"images {turn}", images)
                bench.kept.pop(f"images {turn - 1}", None)
                yield from _sharing(list(images.phases()), stage.fraction)
            yield Beginning(course, stage.name, anew=stage.anew)
            for part in stage.recovery:
                yield from _sharing(list(part.phases(bench, images)), stage.fraction)
            yield Judging(course, stage.name, self.judged_on, self.batch)


def _lack(stage: Stage, network: nn.Module, example: Tensor, scheme: Scheme) -> str | None:
    try:
        for part in stage.recovery:
            part.suited(network, example, scheme)
        for tap in stage.teacher_taps:
            tap.require(network, example)
    except (NetworkError, SchemeError) as error:
        return error.what
    return None


def _sharing(phases: list[Phase], fraction: float) -> Iterator[Phase]:
    """Give each phase that can be stretched an equal part of a fraction of the remaining time."""
    waiting = sum(phase.stretches for phase in phases)
    for phase in phases:
        if phase.stretches:
            phase.share, phase.longest = fraction / waiting, _MOST * phase.total
            waiting -= 1
        yield phase
