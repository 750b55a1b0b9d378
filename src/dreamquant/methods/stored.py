"""Schedules of methods with a pool: images are made first, then the student learns from them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dreamquant.methods.method import Preset
from dreamquant.training.decay import Cosine, Steps

EPOCH = 200  # iterations of an epoch

QUICK = Preset(
    images={"size": 256, "batch": 64, "steps": 60, "lr": 0.1},
    recovery={
        "Train": {
            "iterations": 700,
            "batch": 16,
            "lr": 5e-4,
            "optimizer": "adam",
            "decay": Cosine(rise=50),
            "clip": 5.0,
        }
    },
    scheme={"ranges": "learned", "gradient": "clipped"},
)

QUICK_IMAGENET = Preset(
    images={"size": 64, "batch": 32, "steps": 40, "lr": 0.1},
    recovery={
        "Calibrate": {"count": 64, "batch": 32},
        "Train": {
            "iterations": 200,
            "batch": 8,
            "lr": 1e-3,
            "decay": Cosine(rise=20),
            "clip": 5.0,
        },
    },
    scheme={"gradient": "clipped"},
)


def published(
    lr: float,
    *,
    batch: int,
    epochs: int = 147,
    milestones: tuple[int, ...] = (),
    images: Mapping[str, Any] | None = None,
    train: Mapping[str, Any] | None = None,
) -> Preset:
    """5120 images of 1000 steps each, then epochs of 200 iterations on them.

    Args:
        lr: the student's learning rate.
        batch: images of an iteration.
        epochs: epochs in which the student learns; ranges are set in the four epochs before.
        milestones: epochs at which the learning rate is multiplied by 0.1.
        images: other numbers of the images.
        train: other numbers of the training.
    """
    return Preset(
        images={"size": 5120, "batch": 256, "steps": 1000, "lr": 0.5, **(images or {})},
        recovery={
            "Train": {
                "iterations": epochs * EPOCH,
                "batch": batch,
                "lr": lr,
                "decay": Steps(tuple(epoch * EPOCH for epoch in milestones)),
                **(train or {}),
            }
        },
    )
