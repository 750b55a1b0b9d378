"""Describes the phases of a run."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import groupby
from typing import Any

_PRECISIONS = {"32": "float32", "bf16": "bfloat16"}
_STAGE = "stage: "
_FEW = 4  # largest number of kinds of phases that a terminal lists one by one


def steps_taken(manifest: Mapping[str, Any]) -> str:
    """All phases with their steps and precision; consecutive phases of one kind are summed."""
    return "; ".join(_told(manifest)) or "nothing but rounding"


def steps_in_brief(manifest: Mapping[str, Any]) -> str:
    """The same for a terminal; many kinds of phases are summarised by stages and totals."""
    told = _told(manifest)
    if len(told) <= _FEW:
        return steps_taken(manifest)
    stages = [kind.removeprefix(_STAGE) for kind in told if kind.startswith(_STAGE)]
    steps = sum(phase["iterations"] for phase in manifest["phases"])
    ran = "; ".join(stages) if stages else f"{len(manifest['phases'])} phases"
    return f"{ran}: {steps} steps in all; manifest.json lists them"


def _told(manifest: Mapping[str, Any]) -> list[str]:
    kinds = groupby(manifest["phases"], key=lambda phase: (phase["kind"], phase["precision"]))
    return [
        _one(kind, precision, sum(phase["iterations"] for phase in phases))
        for (kind, precision), phases in kinds
    ]


def _one(kind: str, precision: str, count: int) -> str:
    if kind.startswith(_STAGE):  # this phase only marks the beginning of a stage
        return kind
    return f"{kind}, {count} {'step' if count == 1 else 'steps'} in {_PRECISIONS[precision]}"
