"""Training: the student learns from the teacher on images, in turns with the images' source."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from dreamquant.errors import MethodError
from dreamquant.networks.probe import batch_norms
from dreamquant.recovery.following import following
from dreamquant.recovery.inundation import Inundation
from dreamquant.recovery.part import Recovery
from dreamquant.recovery.views import Filter, StudentView
from dreamquant.synthesis.source import Images, require_any_output
from dreamquant.terms.contract import Minimizer, Terms, weighted
from dreamquant.training.bench import Bench
from dreamquant.training.decay import Cosine, Decay, stretch
from dreamquant.training.losses import Losses, total
from dreamquant.training.optimizers import Adam, NesterovSGD
from dreamquant.training.phase import Phase
from dreamquant.training.step import Step
from dreamquant.training.turns import Learner, add_gradients, require_equal_parts, turn

_COSINE = Cosine()


@dataclass(frozen=True)
class Train(Minimizer, Recovery):
    """The student minimises terms on new batches; after it the image source takes its turn.

    Attributes:
        terms: the losses that the student minimises.
        iterations: number of turns of the image source; each has one batch, unless ``turns`` says
            more.
        batch: images of a batch.
        turns: batches from which the student learns in an iteration; the image source learns from
            the last of them.
        norms: statistics that the student's batch norms normalise by during training: the
            ``stored`` ones, or the ``batch``'s own, from which the stored ones are then updated.
        lr: learning rate.
        optimizer: ``sgd`` has Nesterov momentum; ``adam`` has betas (0.9, 0.999), and uses neither
            ``momentum`` nor ``weight_decay``.
        decay: decay of the learning rate.
        momentum: of SGD.
        weight_decay: of SGD.
        clip: largest norm of the gradient; ``None`` does not clip it.
        inundation: enlarges updates that change too few codes; ``None`` leaves them unchanged.
        views: transformations of the images: the student also learns from the result of each, and
            the loss is the mean over all.
        through: filters of the images for the student and for the teacher beside it; the image
            source still learns from the unfiltered images.

    Raises:
        MethodError: weights would decay while their updates are enlarged.
    """

    terms: Terms
    iterations: int = 1100
    batch: int = 16
    turns: int = 1
    norms: Literal["stored", "batch"] = "stored"
    lr: float = 5e-4
    optimizer: Literal["sgd", "adam"] = "sgd"
    decay: Decay = _COSINE
    momentum: float = 0.9
    weight_decay: float = 1e-4
    clip: float | None = None
    inundation: Inundation | None = None
    views: tuple[StudentView, ...] = ()
    through: tuple[Filter, ...] = ()

    def __post_init__(self) -> None:
        if self.inundation is not None and self.weight_decay:
            raise MethodError(
                "updates are enlarged only where weights do not decay",
                remedy="let weight_decay be 0; distillation has some, so leave out ait there",
            )

    @property
    def updates(self) -> int:
        """The image source learns in every iteration."""
        return self.iterations

    def for_any_output(self) -> Train:
        """The same, where no term needs classes.

        Raises:
            MethodError: a term needs classes.
        """
        require_any_output(self.terms, "its student")
        return self

    def stretched(self, ratio: float) -> Train:
        """The same with ``ratio`` times as many iterations."""
        return replace(
            self,
            iterations=stretch(self.iterations, ratio),
            decay=self.decay.stretched(ratio),
        )

    def phases(self, bench: Bench, images: Images | None) -> Iterator[Phase]:
        """One phase, in which the student learns.

        Raises:
            MethodError: the method has no images.
            TrainingError: a batch cannot be divided into so many micro-batches.
        """
        if images is None:
            raise MethodError(
                "Train needs images, and the method has none",
                remedy="give the method images, or leave Train out",
            )
        require_equal_parts(self.batch, bench.parts, 1)
        if self.iterations:
            yield StudentLearns(self, bench, images)


class StudentLearner:
    """The student's optimizer, and its turn in each iteration.

    Args:
        recovery: the numbers of the training.
        bench: networks, random generators and device of the run.

    Attributes:
        shared: whether the image source's loss is differentiated through the same forward pass.
    """

    def __init__(self, recovery: Train, bench: Bench) -> None:
        self.recovery, self.bench, self.shared = recovery, bench, False
        self.terms = weighted(recovery.terms)
        self._parameters = [p for p in bench.student.parameters() if p.requires_grad]
        self.optimizer = _optimizer(recovery, self._parameters)
        self.done, self.length = 0, recovery.iterations

    @property
    def parameters(self) -> Sequence[Tensor]:
        """The student's parameters that learn."""
        return self._parameters

    def learn(self, step: Step, losses: Losses) -> None:
        """Add the gradients of the student's terms, on the images and on each view of them."""
        parts, views = self.bench.accumulate, self.recovery.views
        step = self._filtered(step)
        if step.images.is_leaf and any(view.reads_gradient for view in views):
            step.images.requires_grad_()  # images of a pool have no graph yet
        loss = total(self.terms, step, losses, "student", parts)
        for view in views:
            other = self._on(step, view, loss)
            loss = loss + total(self.terms, other, losses, type(view).__name__.lower(), parts)
        if views:
            loss = loss / (1 + len(views))
        gradients = torch.autograd.grad(
            loss, self._parameters, retain_graph=self.shared, allow_unused=True
        )
        add_gradients(self._parameters, gradients)

    def _filtered(self, step: Step) -> Step:
        filters, batch = self.recovery.through, step.batch
        if not filters:
            return step
        images = batch.images.detach()
        for each in filters:
            images = each(images)
        seen = replace(batch, images=images)
        return Step(seen, self.bench.players, self.bench.rng, student_learns=True)

    def _on(self, step: Step, view: StudentView, loss: Tensor) -> Step:
        bench = self.bench
        return Step(view(step, loss), bench.players, bench.rng, student_learns=True)

    def update(self) -> None:
        """One step of the optimizer."""
        recovery = self.recovery
        if recovery.clip is not None:
            nn.utils.clip_grad_norm_(self._parameters, recovery.clip)
        factor = recovery.decay.factor(self.done // recovery.turns, self.length)
        with self._enlarging(factor):
            self.optimizer.step(recovery.lr * factor)
        self.done += 1

    def _enlarging(self, factor: float) -> AbstractContextManager[None]:
        inundation, bench = self.recovery.inundation, self.bench
        if inundation is None:
            return nullcontext()
        wanted = factor * inundation.wanted(bench.input.shape)
        return inundation.enlarging(bench.student, wanted)


def _optimizer(recovery: Train, parameters: Sequence[Tensor]) -> Adam | NesterovSGD:
    if recovery.optimizer == "adam":
        return Adam(parameters, betas=(0.9, 0.999))
    return NesterovSGD(parameters, momentum=recovery.momentum, weight_decay=recovery.weight_decay)


class StudentLearns(Phase):
    """The student is trained on new batches."""

    name = "student learns"
    learns = in_training_precision = True
    stretches = True

    def __init__(self, recovery: Train, bench: Bench, images: Images) -> None:
        super().__init__()
        self.recovery, self.bench, self.source = recovery, bench, images
        self.total, self.images = recovery.iterations, recovery.batch * recovery.turns
        self.learner = StudentLearner(recovery, bench)
        own = recovery.norms == "batch"
        self._norms = [norm for _, norm in batch_norms(bench.student.network)] if own else []

    def step(self) -> Losses:
        """The student's turns; the image source learns from the last of their batches."""
        self.learner.length = self.total  # a deadline may have changed the number of steps
        with following(self._norms):
            for _ in range(self.recovery.turns - 1):
                self._turn(along=False)
            return self._turn(along=True)

    def _turn(self, *, along: bool) -> Losses:
        """Train on one batch; ``along`` says whether the image source learns from it too."""
        self.learner.shared = along and self.source.asks_student
        parts = self.source.parts(self.recovery.batch, kept=not along)
        learners: list[Learner] = [self.learner, self.source] if along else [self.learner]
        return turn(self.bench, parts, learners, student_learns=True)

    def trained(self) -> Mapping[str, nn.Module]:
        """The networks that make the images, where they learn."""
        return self.source.networks()

    def state_dict(self) -> dict[str, Any]:
        """The optimizer's state."""
        return {"optimizer": self.learner.optimizer.state_dict(), "done": self.learner.done}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over a state from :meth:`state_dict`."""
        self.learner.optimizer.load_state_dict(state["optimizer"])
        self.learner.done = state["done"]
