"""Texts that users write: durations, sizes, points."""

from __future__ import annotations

import re

from dreamquant.errors import SchemeError, TrainingError

_UNITS = {"s": 1, "sec": 1, "m": 60, "min": 60, "h": 3600}
_DURATION = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)([a-z]+)")
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*(k|m|g)?(i?)b", re.IGNORECASE)
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3}


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


def parse_size(text: str) -> int:
    """Bytes of a text such as ``1.2MB`` or ``800KiB``; a kB is 1,000 of them, a KiB 1,024.

    Raises:
        SchemeError: the text is not of that form.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise SchemeError(f"{text!r} is no size", where="--size", remedy="write it like 1.2MB")
    return int(float(match[1]) * (1024 if match[3] else 1000) ** _POWERS[(match[2] or "").lower()])


def parse_points(text: str) -> float:
    """Points of a text such as ``1`` or ``0.5``.

    Raises:
        SchemeError: it is no number of 0 to 100.
    """
    try:
        points = float(text)
    except ValueError:
        points = -1.0
    if not 0 <= points <= 100:
        raise SchemeError(
            f"{text!r} is no number of points", where="--max-drop", remedy="write it like 1 or 0.5"
        )
    return points
