"""Compares predicted classes of student and teacher: correct ones lost, errors changed."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch import Tensor

_SHOWN = 30  # number of pairs of classes on record


class Answers:
    """Predicted classes of a student and its teacher, collected batch by batch.

    Args:
        classes: number of classes; any other prediction counts as no class.
    """

    def __init__(self, classes: int) -> None:
        self.classes = classes
        self._student: list[Tensor] = []
        self._teacher: list[Tensor] = []

    def add(self, student: Tensor, teacher: Tensor) -> None:
        """Add the predictions (B,) of both for the same images."""
        self._student.append(student.cpu())
        self._teacher.append(teacher.cpu())

    def as_json(self, labels: Tensor | None) -> dict[str, Any]:
        """Counts as plain values: by class, and the pairs of classes that changed most.

        Args:
            labels: (N,); if ``None``, the teacher's predictions are used as labels.
        """
        student, teacher = torch.cat(self._student), torch.cat(self._teacher)
        truth = teacher if labels is None else labels
        student_right, teacher_right = student == truth, teacher == truth
        outcomes = {
            "both_right": student_right & teacher_right,
            "lost": teacher_right & ~student_right,
            "gained": student_right & ~teacher_right,
            "both_wrong": ~student_right & ~teacher_right,
        }
        return {
            "n": len(truth),
            "labelled": labels is not None,
            "outcomes": {name: int(which.sum()) for name, which in outcomes.items()},
            "classes": self._by_class(truth, teacher_right, student_right),
            "changes": self._changes(truth, teacher, student),
        }

    def _by_class(
        self, truth: Tensor, teacher_right: Tensor, student_right: Tensor
    ) -> list[dict[str, int]]:
        counts = [
            truth[which & (truth >= 0)].bincount(minlength=self.classes).tolist()
            for which in (torch.ones_like(truth, dtype=torch.bool), teacher_right, student_right)
        ]
        return [
            {"class": label, "n": n, "teacher": right, "student": kept}
            for label, (n, right, kept) in enumerate(zip(*counts, strict=True))
            if n
        ]

    def _changes(self, truth: Tensor, teacher: Tensor, student: Tensor) -> list[dict[str, int]]:
        """Wrong predictions that only one of the networks makes, most changed pairs first."""
        before, after = (_confusions(truth, predicted) for predicted in (teacher, student))
        change = {pair: abs(after[pair] - before[pair]) for pair in sorted(before | after)}
        return [
            {"truth": pair[0], "answer": pair[1], "teacher": before[pair], "student": after[pair]}
            for pair in sorted(change, key=change.__getitem__, reverse=True)[:_SHOWN]
            if change[pair]
        ]


def _confusions(truth: Tensor, predicted: Tensor) -> Counter[tuple[int, int]]:
    """The number of confusions of each pair of classes."""
    known = (predicted != truth) & (predicted >= 0) & (truth >= 0)
    return Counter(zip(truth[known].tolist(), predicted[known].tolist(), strict=True))
