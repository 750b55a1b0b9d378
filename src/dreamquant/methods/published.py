"""The schedule of the GDFQ family: 400 epochs of 200 iterations, without a data set."""

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
    epoch: int = EPOCH,
    epochs: int = EPOCHS,
    images: dict[str, Any] | None = None,
    student_terms: Sequence[Any] | None = None,
) -> Preset:
    """The preset of a released configuration.

    Args:
        lr: the student's learning rate.
        batch: images of an iteration.
        warm_up: epochs in which only the generator learns; in the first four of them ranges are
            observed on its images.
        milestones: epochs at which both learning rates are multiplied by 0.1.
        epoch: iterations of an epoch.
        epochs: number of epochs in all.
        images: other numbers of the generator.
        student_terms: replace the method's own.
    """
    terms = {} if student_terms is None else {"terms": student_terms}
    return Preset(
        images={
            "batch": batch,
            "alone": warm_up * epoch,
            "observe": min(warm_up, 4) * epoch,
            "decay": Steps(tuple(each * epoch for each in milestones)),
            **(images or {}),
        },
        recovery={
            "Train": {
                "iterations": (epochs - warm_up) * epoch,
                "batch": batch,
                "lr": lr,
                "decay": Steps(tuple((each - warm_up) * epoch for each in milestones)),
                **terms,
            }
        },
    )
