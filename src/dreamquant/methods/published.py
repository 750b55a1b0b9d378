"""The schedule that the GDFQ lineage shares: 400 epochs of 200 iterations, and no data set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dreamquant.methods.method import Preset
from dreamquant.training.decay import Steps

EPOCH = 200
EPOCHS = 400


def published(
    lr: float,
    *,
    batch: int,
    warm_up: int,
    milestones: Sequence[int],
    images: dict[str, Any] | None = None,
    student_terms: Sequence[Any] | None = None,
) -> Preset:
    """The preset of a released configuration.

    Args:
        lr: the student's.
        batch: images of an iteration.
        warm_up: epochs in which the generator learns alone; in the first four of them ranges
            follow its images.
        milestones: epochs at which both rates are multiplied by 0.1.
        images: other numbers of the generator.
        student_terms: in place of the method's own.
    """
    terms = {} if student_terms is None else {"terms": student_terms}
    return Preset(
        images={
            "batch": batch,
            "alone": warm_up * EPOCH,
            "observe": 4 * EPOCH,
            "decay": Steps(tuple(epoch * EPOCH for epoch in milestones)),
            **(images or {}),
        },
        recovery={
            "Train": {
                "iterations": (EPOCHS - warm_up) * EPOCH,
                "batch": batch,
                "lr": lr,
                "decay": Steps(tuple((epoch - warm_up) * EPOCH for epoch in milestones)),
                **terms,
            }
        },
    )
