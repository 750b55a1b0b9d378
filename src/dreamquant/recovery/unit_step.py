"""What terms see of one unit: a view of the teacher's unit and one of the student's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from dreamquant.errors import NetworkError
from dreamquant.networks.taps import Output, Tap
from dreamquant.terms.contract import Minimizer, Terms
from dreamquant.terms.unit_error import CHANNEL_WEIGHTS
from dreamquant.training.batch import Batch
from dreamquant.training.rng import Rng
from dreamquant.training.step import Players, Step
from dreamquant.training.watched import Read, TeacherView, Watched


@dataclass(frozen=True)
class UnitTerms(Minimizer):
    """Terms that are minimised on views of one unit: their taps are taps on the unit.

    Attributes:
        terms: that are minimised.
    """

    terms: Terms


class UnitBatch(NamedTuple):
    """What a unit reads and should return, for some images.

    Attributes:
        inputs: (B, ...), what the student's unit reads.
        exact: (B, ...), what the teacher's unit reads.
        wanted: (B, ...), what the teacher's unit returns.
    """

    inputs: Tensor
    exact: Tensor
    wanted: Tensor


class UnitStep(Step):
    """A step whose networks are one unit of the teacher and the same unit of the student.

    Its images are the inputs of the student's unit. The inputs of the teacher's unit are the
    teacher's own. The output of the teacher's unit is known, so this unit runs only where a term
    reads inside it.

    Args:
        batch: inputs and wanted outputs of the unit.
        players: the two units, from :func:`unit_players`.
        weights: weights of output channels, (1, channels) or (1, 1).
        rng: random generators for terms.
    """

    def __init__(self, batch: UnitBatch, players: Players, weights: Tensor, rng: Rng) -> None:
        none = torch.zeros(len(batch.inputs), dtype=torch.int64, device=batch.inputs.device)
        images = Batch(batch.inputs, none, none, {CHANNEL_WEIGHTS: weights})
        super().__init__(images, players, rng, student_learns=True, compiled=False)
        known: Callable[[], Read] = lambda: (batch.wanted, {})  # noqa: E731
        self.teacher = TeacherView(
            players.teacher, batch.exact, rng.random, run=None if players.teacher.taps else known
        )


def unit_players(
    teacher: nn.Module,
    student: nn.Module,
    context: Callable[[], AbstractContextManager[Any]],
    example: Tensor,
    reads: UnitTerms,
) -> Players:
    """A unit of both networks, with the taps that terms declare.

    Args:
        teacher: the teacher's unit.
        student: the student's unit.
        context: while it is open, the student's unit quantizes its activations.
        example: inputs of the unit, (B, ...).
        reads: the terms that are minimised.

    Raises:
        NetworkError: the unit lacks what a tap reads.
    """
    taps = [tap for tap in reads.student_taps if not isinstance(tap, Output)]
    return Players(
        Watched(teacher, example, reads.teacher_taps),
        Watched(_InContext(student, context), example, taps),
    )


def require_taps(unit: nn.Module, name: str, example: Tensor, taps: Sequence[Tap[Any]]) -> None:
    """Refuse a unit that lacks what terms read inside it.

    Args:
        unit: the teacher's unit.
        name: name of the unit.
        example: inputs of the unit, (B, ...).
        taps: the taps that the terms declare.

    Raises:
        NetworkError: it names the unit.
    """
    for tap in taps:
        try:
            tap.require(unit, example)
        except NetworkError as error:
            raise NetworkError(
                f"the unit {name!r} cannot be reconstructed by these terms: {error.what}",
                where="--method",
                remedy="choose another method, or terms that read nothing but a unit's output",
            ) from error


class _InContext(nn.Module):
    """A unit that opens its context for each forward pass."""

    def __init__(
        self, network: nn.Module, context: Callable[[], AbstractContextManager[Any]]
    ) -> None:
        super().__init__()
        self.network, self.context = network, context

    def forward(self, x: Tensor) -> Tensor:
        with self.context():
            return self.network(x)  # type: ignore[no-any-return]
