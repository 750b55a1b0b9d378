"""The step: one batch of synthetic images and everything shared about it, computed once."""

from __future__ import annotations

from collections.abc import Collection
from functools import cached_property
from typing import cast

import torch
from torch import Tensor, nn

from dreamquant.networks.probe import batch_norms
from dreamquant.networks.taps import batch_norm_inputs, execution_order
from dreamquant.terms.contract import Statistics, Tap


class Teacher:
    """The full-precision network P and what its batch norms remember, in the order executed.

    Args:
        network: in eval mode, without gradient to its parameters.
        example: normalised images for the one forward pass that finds the order.
        taps: what terms read; statistics are only taken where they are listed.
    """

    def __init__(self, network: nn.Module, example: Tensor, taps: Collection[Tap]) -> None:
        self.network = network
        self.norms = [norm for _, norm in batch_norms(network)] if "statistics" in taps else []
        if not self.norms:
            return
        with torch.no_grad(), execution_order(self.norms) as executed:
            network(example)
        means = [cast(Tensor, norm.running_mean) for norm in executed]
        self.stored_mean = torch.cat(means)
        self.stored_var = torch.cat([cast(Tensor, norm.running_var) for norm in executed])
        self.share = torch.cat(
            [torch.full_like(mean, 1 / (len(mean) * len(executed))) for mean in means]
        )


class TeacherOnStep:
    """The teacher on a step's images: one forward pass serves logits and statistics."""

    def __init__(self, teacher: Teacher, images: Tensor) -> None:
        self._teacher, self._images = teacher, images

    @cached_property
    def _forward(self) -> tuple[Tensor, Statistics | None]:
        teacher = self._teacher
        with batch_norm_inputs(teacher.norms) as collected:
            logits = teacher.network(self._images).float()
        if not collected:
            return logits, None
        means, variances = zip(*collected, strict=True)
        measured = torch.cat(means).float(), torch.cat(variances).float()
        return logits, Statistics(*measured, teacher.stored_mean, teacher.stored_var, teacher.share)

    @property
    def logits(self) -> Tensor:
        """(B, classes), float32."""
        return self._forward[0]

    @property
    def statistics(self) -> Statistics:
        """Batch-norm statistics of the same forward pass.

        Raises:
            RuntimeError: a term reads them without listing the tap.
        """
        statistics = self._forward[1]
        if statistics is None:
            raise RuntimeError("a term reads statistics without listing the tap 'statistics'")
        return statistics


class StudentOnStep:
    """The student on a step's images."""

    def __init__(self, student: nn.Module, images: Tensor) -> None:
        self._student, self._images = student, images

    @cached_property
    def logits(self) -> Tensor:
        """(B, classes), float32."""
        logits: Tensor = self._student(self._images).float()
        return logits


class Step:
    """What terms see of an iteration.

    Args:
        images: (B, C, H, W), normalised, with a graph to the generator.
        targets: labels (B,), int64.
        teacher: P.
        student: Q.
    """

    def __init__(
        self, images: Tensor, targets: Tensor, teacher: Teacher, student: nn.Module
    ) -> None:
        self.images, self.targets = images, targets
        self.teacher = TeacherOnStep(teacher, images)
        self.student = StudentOnStep(student, images)
