"""A run that is over, before it is described and saved."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from dreamquant.quantization.student import Student
from dreamquant.results.result import Samples


def plain(value: Mapping[str, Any]) -> dict[str, Any]:
    """The mapping as JSON would give it back: lists for tuples, names for keys."""
    result: dict[str, Any] = json.loads(json.dumps(value))
    return result


class Outcome(NamedTuple):
    """A run that is over.

    Attributes:
        student: as it ended.
        measured: for the manifest.
        samples: synthetic images; ``None`` of a method without.
        analysis: where accuracy went: each quantizer, and the answers that changed.
        diagnostics: what the papers diagnose; ``None`` where it was not asked for.
    """

    student: Student
    measured: dict[str, Any]
    samples: Samples | None
    analysis: dict[str, Any]
    diagnostics: dict[str, Any] | None
