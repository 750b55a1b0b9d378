"""Budgets: a method cut or stretched to the time a user has."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from dreamquant import distributed
from dreamquant.errors import TrainingError
from dreamquant.methods.method import Method
from dreamquant.training.phase import Phase, Run

_PROBES = 3
_LEAST = 2  # iterations


def fit(method: Method, seconds: float, build: Callable[[Method], Run]) -> Method:
    """Scale a method to the speed measured on this machine.

    Args:
        method: as the preset has it.
        seconds: to spend.
        build: makes a run of a method on a copy of the student; a few steps of each phase are
            timed, and it is thrown away.

    Raises:
        TrainingError: not even the shortest run fits.
    """
    start = time.perf_counter()
    needed, overhead, slowest = _measured(build(method))
    # The run itself will begin as slowly as the probe did, compiling above all.
    left = seconds - (time.perf_counter() - start) - overhead
    iterations = int(method.iterations * left / needed) if needed else 0
    if method.iterations and iterations < _LEAST:
        raise TrainingError(
            f"{seconds:.0f} s are too few: one iteration takes {slowest:.1f} s"
            + (f", and what cannot be shortened {overhead:.0f} s" if overhead >= 1 else ""),
            where="--budget",
            remedy="give more time",
        )
    return method.lasting(iterations)


def _measured(run: Run) -> tuple[float, float, float]:
    """Seconds of all phases that can be stretched, seconds beyond that, the slowest such step."""
    needed = overhead = slowest = 0.0
    while run.skip_to_end_of_phase():
        phase = run.phase
        assert phase is not None
        usual, once = _seconds_per_step(phase)
        phase.leave()
        overhead += once
        if phase.stretches:
            needed, slowest = needed + usual * phase.total, max(slowest, usual)
        else:
            overhead += usual * phase.total
    return needed, overhead, slowest


def _seconds_per_step(phase: Phase) -> tuple[float, float]:
    """What a step takes, and what the first takes beyond that."""
    times = []
    for _ in range(min(1 + _PROBES, phase.total)):
        start = time.perf_counter()
        phase.step()
        times.append(time.perf_counter() - start)
    first, *others = times
    usual = sorted(others)[len(others) // 2] if others else first
    with distributed.together():
        usual, first = distributed.mean(torch.tensor([usual, first])).tolist()
    return usual, max(first - usual, 0)
