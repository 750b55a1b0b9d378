"""What a run did, phase by phase, in words."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import groupby
from typing import Any

_PRECISIONS = {"32": "float32", "bf16": "bfloat16"}


def steps_taken(manifest: Mapping[str, Any]) -> str:
    """Phases with their steps and the precision that they ran in; those of one kind as one."""
    kinds = groupby(manifest["phases"], key=lambda phase: (phase["kind"], phase["precision"]))
    told = [
        _told(kind, precision, sum(phase["iterations"] for phase in phases))
        for (kind, precision), phases in kinds
    ]
    return "; ".join(told) or "nothing but rounding"


def _told(kind: str, precision: str, count: int) -> str:
    if kind.startswith("stage: "):  # it only begins what the next ones do
        return kind
    return f"{kind}, {count} {'step' if count == 1 else 'steps'} in {_PRECISIONS[precision]}"
