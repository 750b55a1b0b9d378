"""Presets with other batch sizes, and the length of runs as pages print it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from dreamquant.methods.method import Preset


def on_batches(preset: Preset, batch: int, **train: Any) -> Preset:
    """The preset with images and training on batches of that size, and other numbers of Train."""
    numbers = {**preset.recovery["Train"], "batch": batch, **train}
    recovery = {**preset.recovery, "Train": numbers}
    return replace(preset, images={**preset.images, "batch": batch}, recovery=recovery)


def length(method: Mapping[str, Any]) -> dict[str, int]:
    """Iterations of a method on record, and images of one in which the student learns."""
    (train,) = (part for part in method["recovery"] if part["part"] == "Train")
    return {"iterations": method["iterations"], "batch": train["batch"]}
