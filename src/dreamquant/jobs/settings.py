"""How a job is run, whatever it makes: what quantizing and distilling are both told."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dreamquant.errors import TrainingError
from dreamquant.jobs.budget import parse_duration
from dreamquant.training.devices import accelerator_for

if TYPE_CHECKING:
    from accelerate import Accelerator

_SEEDS = 2**32  # as many as NumPy takes; torch takes more


@dataclass(frozen=True, kw_only=True)
class Running:
    """Length, device, precision and voice of a run.

    Attributes:
        iterations: stretch or squeeze the schedule to so many.
        budget: the same, to a duration such as ``5min`` on this machine.
        seed: of everything random.
        data: images to measure on.
        device: ``auto``, ``cpu`` or ``cuda``.
        precision: ``32`` or ``bf16``, while training.
        compiled: whether the networks run as compiled graphs.
        threads: of this process from now on; ``None`` leaves them.
        accumulate: parts that each process takes its share of a batch in.
        resume: go on from a checkpoint.
        quiet: show no progress.
        verbose: show losses and accuracies on the way too, line by line.
        started: when it began, by the monotonic clock.

    Raises:
        TrainingError: no run can have that length or seed, or none on this machine that device,
            precision or number of threads.
    """

    iterations: int | None
    budget: str | None
    seed: int
    data: str | Path | None
    device: str
    precision: str
    compiled: bool
    threads: int | None
    accumulate: int
    resume: bool
    quiet: bool
    verbose: bool
    started: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        if self.iterations is not None and self.iterations < 1:
            raise TrainingError(
                f"{self.iterations} iterations are none",
                where="--iterations",
                remedy="give 1 or more",
            )
        if self.iterations is not None and self.budget is not None:
            raise TrainingError(
                "both iterations and a budget are given, and either sets the length of the run",
                where="--iterations, --budget",
                remedy="give one of them",
            )
        if not 0 <= self.seed < _SEEDS:
            raise TrainingError(
                f"{self.seed} is no seed",
                where="--seed",
                remedy=f"give a number from 0 to {_SEEDS - 1}",
            )
        # Refused here, before a network is loaded.
        _ = self.seconds, self.accelerator

    @cached_property
    def accelerator(self) -> Accelerator:
        """Device, precision and processes."""
        return accelerator_for(self.device, self.precision, self.threads)

    @property
    def seconds(self) -> float | None:
        """The budget."""
        return None if self.budget is None else parse_duration(self.budget)

    def configuration(self) -> dict[str, Any]:
        """What a run that goes on has to share with the one that was stopped."""
        return {
            "iterations": self.iterations,
            "budget": self.budget,
            "seed": self.seed,
            "precision": self.precision,
            "compiled": self.compiled,
            "accumulate": self.accumulate,
            "device": self.accelerator.device.type,
            "data": None if self.data is None else str(self.data),
        }
