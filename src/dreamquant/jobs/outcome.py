"""A run that has ended, before it is described and saved."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from dreamquant.quantization.student import Student
from dreamquant.results.result import Samples


def plain(value: Mapping[str, Any]) -> dict[str, Any]:
    """The mapping after a round trip through JSON: lists for tuples, text for keys."""
    result: dict[str, Any] = json.loads(json.dumps(value))
    return result


class Outcome(NamedTuple):
    """A run that has ended.

    Attributes:
        student: at the end.
        measured: for the manifest.
        samples: synthetic images; ``None`` for a method without.
        analysis: each quantizer, and the answers that changed.
        diagnostics: problems that papers describe; ``None`` if they were not asked for.
    """

    student: Student
    measured: dict[str, Any]
    samples: Samples | None
    analysis: dict[str, Any]
    diagnostics: dict[str, Any] | None
