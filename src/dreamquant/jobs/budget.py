"""Budgets: a schedule cut or stretched to the time a user has."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

import torch

from dreamquant import distributed
from dreamquant.errors import TrainingError
from dreamquant.methods.schedule import Schedule
from dreamquant.training.loop import Training

_UNITS = {"s": 1, "sec": 1, "m": 60, "min": 60, "h": 3600}
_DURATION = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)([a-z]+)")
_PROBES = 3


def parse_duration(text: str) -> float:
    """Seconds of a duration such as ``90s``, ``5min``, ``1.5h`` or ``1h30m``.

    Raises:
        TrainingError: the text is no positive duration.
    """
    compact = text.strip().lower().replace(" ", "")
    parts = _DURATION.findall(compact)
    known = all(unit in _UNITS for _, unit in parts)
    if not parts or not known or "".join(n + u for n, u in parts) != compact:
        raise TrainingError(
            f"{text!r} is no duration", where="--budget", remedy="write 90s, 5min or 1.5h"
        )
    seconds = sum(float(number) * _UNITS[unit] for number, unit in parts)
    if seconds <= 0:
        raise TrainingError(f"{text!r} leaves no time", where="--budget", remedy="write 5min")
    return seconds


def fit(schedule: Schedule, seconds: float, build: Callable[[], Training]) -> Schedule:
    """Scale a schedule to the speed measured on this machine.

    Args:
        schedule: as the preset has it.
        seconds: to spend on training.
        build: makes a run of that schedule on a copy of the student; a few of its iterations are
            timed, and it is thrown away.

    Raises:
        TrainingError: not even the shortest run fits.
    """
    start = time.perf_counter()
    probe = build()
    warmup, once = _seconds_per_iteration(probe)
    probe.iteration = schedule.student_warmup
    learning, once_more = _seconds_per_iteration(probe)
    # The run itself will begin as slowly as the probe did, compiling above all.
    left = seconds - (time.perf_counter() - start) - once - once_more
    share = schedule.student_warmup / schedule.iterations
    iterations = int(left / (share * warmup + (1 - share) * learning))
    if iterations < 2:
        raise TrainingError(
            f"{seconds:.0f} s are too few: one iteration takes {learning:.1f} s",
            where="--budget",
            remedy="give more time or a smaller batch",
        )
    return schedule.scaled(iterations)


def _seconds_per_iteration(training: Training) -> tuple[float, float]:
    """What an iteration takes, and what the first takes beyond that."""
    times = []
    for _ in range(1 + _PROBES):
        start = time.perf_counter()
        training.step()
        times.append(time.perf_counter() - start)
    first, *others = times
    usual = sorted(others)[_PROBES // 2]
    with distributed.together():
        usual, first = distributed.mean(torch.tensor([usual, first])).tolist()
    return usual, max(first - usual, 0)
