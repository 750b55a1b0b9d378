"""Schedules: how long, how fast, and in which order generator and student learn."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal


@dataclass(frozen=True)
class Schedule:
    """The numbers of the alternating game; one iteration is one batch of new images.

    Attributes:
        iterations: in all.
        batch: images per iteration.
        range_warmup: iterations at the start during which activation ranges follow the images.
        student_warmup: iterations at the start during which only the generator learns.
        student_lr: of its optimizer.
        student_optimizer: ``sgd`` has Nesterov momentum; ``adam`` betas (0.9, 0.999), and neither
            ``momentum`` nor ``weight_decay``.
        generator_lr: Adam with betas (0.5, 0.999).
        decay: of both learning rates: ``steps`` multiplies by 0.1 at each milestone; ``cosine``
            falls to zero at the end, and raises the student's first over ``lr_warmup``.
        milestones: iterations, for ``steps``.
        lr_warmup: iterations after ``student_warmup`` in which the student's rate rises linearly.
        weight_decay: of the student's SGD.
        momentum: of the student's SGD.
        clip: largest norm of the student's gradient; ``None`` leaves it as it is.
    """

    iterations: int
    batch: int
    range_warmup: int
    student_warmup: int
    student_lr: float
    student_optimizer: Literal["sgd", "adam"] = "sgd"
    generator_lr: float = 1e-3
    decay: Literal["steps", "cosine"] = "steps"
    milestones: tuple[int, ...] = ()
    lr_warmup: int = 0
    weight_decay: float = 1e-4
    momentum: float = 0.9
    clip: float | None = None

    def scaled(self, iterations: int) -> Schedule:
        """The same schedule stretched or squeezed to another number of iterations."""
        ratio = iterations / self.iterations

        def stretch(length: int) -> int:
            return min(max(round(length * ratio), min(length, 1)), iterations)

        return replace(
            self,
            iterations=iterations,
            range_warmup=stretch(self.range_warmup),
            student_warmup=stretch(self.student_warmup),
            milestones=tuple(stretch(milestone) for milestone in self.milestones),
            lr_warmup=stretch(self.lr_warmup),
        )

    def student_rate(self, iteration: int) -> float:
        """Learning rate of the student at an iteration, counted from 0."""
        if self.decay == "steps":
            return self.student_lr * self._steps(iteration)
        taken = iteration - self.student_warmup
        rise = min(1.0, (taken + 1) / (self.lr_warmup + 1))
        return self.student_lr * rise * _cosine(taken, self.iterations - self.student_warmup)

    def generator_rate(self, iteration: int) -> float:
        """Learning rate of the generator at an iteration, counted from 0."""
        if self.decay == "steps":
            return self.generator_lr * self._steps(iteration)
        return self.generator_lr * _cosine(iteration, self.iterations)

    def _steps(self, iteration: int) -> float:
        return 0.1 ** sum(iteration >= milestone for milestone in self.milestones)


def _cosine(taken: int, total: int) -> float:
    return 0.5 * (1 + math.cos(math.pi * taken / max(total, 1)))
