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
from dreamquant.networks.relu_maps import LastMap
from dreamquant.synthesis.source import Images
from dreamquant.terms.attention import pooled
from dreamquant.training.phase import Run
from dreamquant.training.watched import Watched

_SEED = 0


class Dynamics:
    """Watches a run: the generator's gradient, and the similarity of its batches over time.

    Args:
        record: receives the figures; part of the checkpoint.
        teacher: P with a tap on its last feature map.
        images: of the method.
    """

    def __init__(self, record: Record, teacher: Watched, images: Images) -> None:
        self.record, self.teacher, self.images = record, teacher, images

    @torch.no_grad()
    def __call__(self, run: Run, losses: dict[str, float] | None) -> None:
        """Record both measures whenever the losses are read."""
        if not losses or not self.images.parameters:
            return
        features = self._features(run)
        before, self.record.features = self.record.features, features
        similarity = None if before is None else batch_similarity(before, features)
        self.record.dynamics.append(
            {
                "iteration": run.done,
                "gradient_norm": gradient_norm(self.images),
                "batch_similarity": similarity,
            }
        )

    def _features(self, run: Run) -> Tensor:
        """Of a new batch (B, F), on the CPU: asked for the same every time, from other noise."""
        device = run.bench.device
        same = torch.Generator(device).manual_seed(_SEED)
        other = torch.Generator(device).manual_seed(_SEED + run.done)
        targets = self.images.ask(BATCH, same).targets
        _, read = self.teacher.read(dream(self.images, other, targets).images)
        features: Tensor = pooled(read[LastMap()])
        return features.cpu()


def over_time(record: Record) -> dict[str, Any]:
    """Every series as a list, and the iteration at which the student's training began."""
    names = ("iteration", "gradient_norm", "batch_similarity")
    series = {name: [reading[name] for reading in record.dynamics] for name in names}
    return {**series, "student_learns_from": record.ranges_set_at}


def gradient_norm(images: Images) -> float:
    """Euclidean norm of the gradient of the generator's last update."""
    gradients = [p.grad for p in images.parameters if p.grad is not None]
    return nn.utils.get_total_norm(gradients).item()


def batch_similarity(before: Tensor, now: Tensor) -> float:
    """Mean cosine of features (B, F) of images with equal targets in two batches; in [-1, 1]."""
    alike: Tensor = F.cosine_similarity(before, now, dim=1).mean()
    return alike.item()
