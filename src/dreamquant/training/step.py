"""The step: one batch of images and everything shared about it, computed once."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor

from dreamquant.errors import MethodError
from dreamquant.terms.contract import Term
from dreamquant.training.batch import Batch
from dreamquant.training.rng import Rng
from dreamquant.training.watched import TeacherView, View, Watched

_NOISE_SEED = 0  # seed of the noise images that thresholds refer to, the same in every run


class Players:
    """The two networks of a run, in the form that terms read.

    Args:
        teacher: P with its taps.
        student: Q with its taps.

    Attributes:
        references: values measured on noise images, see :meth:`Step.reference`.
    """

    def __init__(self, teacher: Watched, student: Watched) -> None:
        self.teacher, self.student = teacher, student
        self.references: dict[Callable[..., Tensor], Tensor] = {}


class Step:
    """What terms see of an iteration.

    Args:
        batch: images and their targets, latents and conditions.
        players: P and Q.
        rng: random generators for terms.
        student_learns: whether the student is trained in this step.
        compiled: whether the student's compiled graphs are used, where there are any.
    """

    def __init__(
        self,
        batch: Batch,
        players: Players,
        rng: Rng,
        *,
        student_learns: bool,
        compiled: bool = True,
    ) -> None:
        self.batch, self._players = batch, players
        self._reader: Term | None = None  # without a reader, everything may be read
        self.images, self.targets, self.latent = batch.images, batch.targets, batch.latent
        self.random, self.choice = rng.random, rng.choice
        self.student_learns = student_learns
        self.teacher = TeacherView(players.teacher, batch.images, rng.random)
        self.student = View(
            lambda: players.student.read(batch.images, compiled=compiled),
            owner="student",
            elsewhere=lambda images: players.student.read(images, compiled=compiled),
        )

    def condition(self, name: str) -> Tensor:
        """A condition that each image was to meet, (B, ...), or one for all images, (1, ...).

        Raises:
            MethodError: the images have no condition of this name.
        """
        if name not in self.batch.conditions:
            raise MethodError(
                f"a term reads the condition {name!r}, and the method's images have none",
                remedy="give the method's image source that condition",
            )
        return self.batch.conditions[name]

    def seen_by(self, term: Term) -> Step:
        """The same step with views that give a term only what it declares."""
        seen = copy.copy(self)
        seen._reader = term
        reader = type(term).__name__
        seen.teacher = self.teacher.limited_to(term.teacher_taps, reader)
        seen.student = self.student.limited_to(term.student_taps, reader)
        return seen

    def reference(self, measure: Callable[[Step], Tensor]) -> Tensor:
        """``measure`` of a step whose images are Gaussian noise, taken once a run, detached."""
        references = self._players.references
        if measure not in references:
            rng = Rng.seeded(_NOISE_SEED, self.images.device)
            shape, device = self.images.shape, self.images.device
            images = torch.randn(shape, generator=rng.random, device=device)
            batch = Batch(images, self.targets, self.latent, self.batch.conditions)
            noise = Step(batch, self._players, rng, student_learns=False)
            seen = noise if self._reader is None else noise.seen_by(self._reader)
            with torch.no_grad():
                references[measure] = measure(seen)
        return references[measure]
