"""One iteration of training: both networks run on the same images before either learns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor

from dreamquant import distributed
from dreamquant.errors import TrainingError
from dreamquant.training.batch import Batch
from dreamquant.training.bench import Bench
from dreamquant.training.losses import Losses
from dreamquant.training.step import Step


class Learner(Protocol):
    """A player of a turn: it adds gradients on each micro-batch, then updates once."""

    @property
    def parameters(self) -> Sequence[Tensor]:
        """The parameters that it trains."""
        ...

    def learn(self, step: Step, losses: Losses) -> None:
        """Add the gradients and losses of this micro-batch."""
        ...

    def update(self) -> None:
        """Take one step of the optimizer along the gradients that were added."""
        ...


def turn(
    bench: Bench,
    parts: Iterator[Batch],
    learners: Sequence[Learner],
    *,
    observe: bool = False,
    student_learns: bool = False,
) -> Losses:
    """Let learners learn from one batch.

    Args:
        bench: networks, random generators and device of the run.
        parts: this process's micro-batches, made one by one.
        learners: in the order of their turns. The student comes before the generator, whose loss is
            differentiated through the same forward pass.
        observe: whether the student's activation ranges are observed on the images.
        student_learns: whether the student is among the learners.

    Returns:
        Every term's unweighted loss by name.
    """
    _forget_gradients(learners)
    if bench.compiled and bench.device.type == "cuda":
        # Tensors that recorded graphs returned before are not needed any more.
        torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
    losses: Losses = {}
    with distributed.together():
        for batch in parts:
            bench.student.observe(observe)
            with bench.autocast():
                step = Step(
                    batch,
                    bench.players,
                    bench.rng,
                    student_learns=student_learns,
                    compiled=not observe,
                )
                if observe:
                    _ = step.student.output
                for learner in learners:
                    learner.learn(step, losses)
        bench.student.observe(False)
        learning = [p for learner in learners for p in learner.parameters]
        distributed.average([p.grad for p in learning if p.grad is not None])
        for learner in reversed(learners):
            learner.update()
    return losses


def _forget_gradients(learners: Sequence[Learner]) -> None:
    for learner in learners:
        for parameter in learner.parameters:
            parameter.grad = None


def add_gradients(parameters: Sequence[Tensor], gradients: Sequence[Tensor | None]) -> None:
    """Add gradients to those of earlier micro-batches."""
    for parameter, gradient in zip(parameters, gradients, strict=True):
        if parameter.grad is None:
            parameter.grad = gradient
        elif gradient is not None:
            parameter.grad = parameter.grad + gradient


def require_equal_parts(batch: int, parts: int, group: int) -> None:
    """Refuse a batch that cannot be divided into so many micro-batches.

    Args:
        batch: number of images.
        parts: number of micro-batches over all processes.
        group: number of images that must stay together.

    Raises:
        TrainingError: the parts would not be equal, or would divide a group.
    """
    if parts < 1 or batch % (parts * group):
        raise TrainingError(
            f"a batch of {batch} images cannot be divided into {parts} equal parts"
            + (f" of whole groups of {group}" if group > 1 else ""),
            where="--micro-batches times the number of processes",
            remedy="choose numbers whose product divides the batch",
        )
