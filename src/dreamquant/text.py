"""Texts that users write: durations."""

from __future__ import annotations

import re

from dreamquant.errors import TrainingError

_UNITS = {"s": 1, "sec": 1, "m": 60, "min": 60, "h": 3600}
_DURATION = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)([a-z]+)")


def parse_duration(text: str) -> float:
    """Seconds of a duration such as ``90s``, ``5min``, ``1.5h`` or ``1h30m``.

    Raises:
        TrainingError: the text is not a positive duration.
    """
    compact = text.strip().lower().replace(" ", "")
    parts = _DURATION.findall(compact)
    known = all(unit in _UNITS for _, unit in parts)
    if not parts or not known or "".join(n + u for n, u in parts) != compact:
        raise TrainingError(
            f"{text!r} is not a duration", where="--budget", remedy="write 90s, 5min or 1.5h"
        )
    seconds = sum(float(number) * _UNITS[unit] for number, unit in parts)
    if seconds <= 0:
        raise TrainingError(f"{text!r} leaves no time", where="--budget", remedy="write 5min")
    return seconds
