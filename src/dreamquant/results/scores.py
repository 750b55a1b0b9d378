"""The main score of a network on record: top-1, or the score of another task."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple


class Score(NamedTuple):
    """A score in percent.

    Attributes:
        name: ``top-1``, ``mIoU`` and so on.
        value: in percent.
        ci95: its 95 % interval, if there is one.
    """

    name: str
    value: float
    ci95: tuple[float, float] | None


def main_score(measured: Mapping[str, Any] | None) -> Score | None:
    """The main score of an evaluation on record; ``None`` if there were no labels."""
    if not measured:
        return None
    if measured["top1"] is not None:
        return Score("top-1", measured["top1"], measured["ci95"])
    scores: Mapping[str, float] = measured.get("scores", {})  # a classifier's record has none
    return next((Score(name, value, measured["ci95"]) for name, value in scores.items()), None)
