"""Stagnation and homogeneity of the generator over time, as AGM sees them (TCSVT 2024).

Confirmed, from the abstract: a generator's updates stagnate in mid and late training, and its
images become homogeneous over time. The two measures are ours.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dreamquant.diagnostics.dreams import BATCH, dream
from dreamquant.jobs.watchers import Record
from dreamquant.methods.schedule import Schedule
from dreamquant.training.loop import Training
from dreamquant.training.step import Teacher

_SEED = 0


class Dynamics:
    """Watches a run: the generator's gradient, and how alike its batches are from time to time.

    Args:
        record: takes the figures; part of the checkpoint.
        teacher: P, tapping its last feature map.
    """

    def __init__(self, record: Record, teacher: Teacher) -> None:
        self.record, self.teacher = record, teacher

    @torch.no_grad()
    def __call__(self, training: Training, losses: dict[str, float] | None) -> None:
        """Take note, whenever the losses were read."""
        if losses is None:
            return
        features = self._features(training)
        before, self.record.features = self.record.features, features
        similarity = None if before is None else batch_similarity(before, features)
        self.record.dynamics.append(
            {
                "iteration": training.iteration,
                "gradient_norm": gradient_norm(training),
                "batch_similarity": similarity,
            }
        )

    def _features(self, training: Training) -> Tensor:
        """Of a new batch (B, F), on the CPU: asked for the same every time, from other noise."""
        device = training.accelerator.device
        same = torch.Generator(device).manual_seed(_SEED)
        other = torch.Generator(device).manual_seed(_SEED + training.iteration)
        targets = training.recipe.targets.sample(BATCH, training.classes, same)
        return self.teacher.answer(dream(training, other, targets).images).features.cpu()


def over_time(record: Record, schedule: Schedule) -> dict[str, Any]:
    """Every series as a list, and the iteration from which the student learned."""
    names = ("iteration", "gradient_norm", "batch_similarity")
    series = {name: [reading[name] for reading in record.dynamics] for name in names}
    return {**series, "student_learns_from": schedule.student_warmup}


def gradient_norm(training: Training) -> float:
    """Euclidean norm of the gradient that the generator's last update followed."""
    gradients = [p.grad for p in training.generator_parameters if p.grad is not None]
    return nn.utils.get_total_norm(gradients).item()


def batch_similarity(before: Tensor, now: Tensor) -> float:
    """Mean cosine of two batches' features (B, F), image by image asked for alike; in [-1, 1]."""
    alike: Tensor = F.cosine_similarity(before, now, dim=1).mean()
    return alike.item()
