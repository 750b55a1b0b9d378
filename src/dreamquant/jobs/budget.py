"""Budgets: a method is shortened or stretched to the user's time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from dreamquant import distributed
from dreamquant.errors import TrainingError
from dreamquant.jobs.measurements import probe_count, synthetic_count
from dreamquant.methods.method import Method
from dreamquant.training.bench import Bench
from dreamquant.training.deadline import Deadline
from dreamquant.training.phase import Phase, Run

_PROBES = 3
_LEAST = 2  # iterations


class Fitted(NamedTuple):
    """A method with the length that fits the time.

    Attributes:
        method: scaled.
        plan: seconds of each phase.
    """

    method: Method
    plan: list[float]


def fit(method: Method, seconds: float, build: Callable[[Method], Run]) -> Fitted:
    """Scale a method by the speed measured on this machine.

    Args:
        method: with the preset's numbers.
        seconds: time to use.
        build: makes a run of a method on a copy of the student; a few steps of each phase are
            timed, and the run is dropped.

    Raises:
        TrainingError: even the shortest run does not fit.
    """
    if not method.iterations or any(part.paces_itself for part in method.recovery):
        return Fitted(method, [])
    start = time.perf_counter()
    phases = _measured(build(method))
    needed = sum(each.seconds for each in phases if each.stretches)
    overhead = sum(each.once + (0 if each.stretches else each.seconds) for each in phases)
    slowest = max((each.step for each in phases if each.stretches), default=0.0)
    # The run itself starts as slowly as the probe did, mainly because of compilation.
    left = seconds - (time.perf_counter() - start) - overhead
    iterations = int(method.iterations * left / needed) if needed else 0
    if method.iterations and iterations < _LEAST:
        raise TrainingError(
            f"{max(seconds, 0):.0f} s are left for the run, and are too few: one iteration takes "
            f"{slowest:.2g} s"
            + (f", and what cannot be shortened {overhead:.0f} s" if overhead >= 1 else ""),
            where="--budget",
            remedy="give more time",
        )
    ratio = left / needed if needed else 1.0
    plan = [each.once + each.seconds * (ratio if each.stretches else 1.0) for each in phases]
    return Fitted(method.lasting(iterations), plan)


class _Timed(NamedTuple):
    """A timed phase: seconds of a step, of all steps, and the extra seconds of the first step."""

    stretches: bool
    step: float
    seconds: float
    once: float


def _measured(run: Run) -> list[_Timed]:
    found = []
    while run.skip_to_end_of_phase():
        phase = run.phase
        assert phase is not None
        usual, once = _seconds_per_step(phase)
        phase.leave()
        phase.abandon()
        found.append(_Timed(phase.stretches, usual, usual * phase.total, once))
    return found


def _seconds_per_step(phase: Phase) -> tuple[float, float]:
    """Seconds of a step, and the extra seconds of the first one."""
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


_AT_ONCE = 16
_SAVING = 3.0  # seconds for files and the report


def deadline_for(bench: Bench, seconds: float, images: int, say: Callable[[str], None]) -> Deadline:
    """The time at which phases must end, so that measuring and saving end within a budget.

    If measuring takes most of the budget, phases get half of it, and the user is told.

    Args:
        bench: with both networks.
        seconds: the rest of the budget.
        images: the user's images to measure on.
        say: tells the user.
    """
    until = Deadline(seconds)
    measuring = _seconds_to_measure(bench, images)
    if measuring > seconds / 2:
        say(
            f"measuring and saving take about {measuring:.0f} s of the {seconds:.0f} s left: the "
            f"run takes about {seconds / 2 + measuring:.0f} s; fewer images in --data shorten it"
        )
    return Deadline(until.left() - min(measuring, seconds / 2))


@torch.no_grad()
def _seconds_to_measure(bench: Bench, images: int) -> float:
    """Seconds from the last step to the saved result, by one forward pass of each network."""
    x = torch.zeros(_AT_ONCE, *bench.input.shape, device=bench.device)
    teacher, student = (_seconds(network, x) for network in (bench.teacher, bench.student.eval()))
    synthetic = synthetic_count(bench.input)
    both, alone = images or probe_count(bench.input), synthetic + min(synthetic, images)
    return (both * (teacher + student) + alone * teacher) / _AT_ONCE + _SAVING


def _seconds(network: nn.Module, x: Tensor) -> float:
    network(x[:1])  # the first call prepares what later calls reuse
    times = []
    for _ in range(2):
        start = time.perf_counter()
        network(x)
        times.append(time.perf_counter() - start)
    return max(times)  # reserve for a machine that others use too
