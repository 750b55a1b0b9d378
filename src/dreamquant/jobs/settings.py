"""How a job is run, whatever it makes: what quantizing and distilling are both told."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dreamquant.errors import TrainingError
from dreamquant.jobs.budget import parse_duration
from dreamquant.training.devices import accelerator_for, require_device

if TYPE_CHECKING:
    from accelerate import Accelerator

_SEEDS = 2**32  # as many as NumPy takes; torch takes more


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Length, device, precision and output of a run; a value that validates and does nothing else.

    Attributes:
        iterations: stretch or squeeze the method to so many.
        budget: the same, to a duration such as ``5min`` on this machine.
        seed: random seed.
        data: images to measure on.
        device: ``auto``, ``cpu`` or ``cuda``.
        precision: ``32`` or ``bf16``, while training.
        compiled: whether the networks run as compiled graphs.
        threads: of this process; ``None`` leaves them.
        accumulate: micro-batches that each process takes its part of a batch in.
        resume: go on from a checkpoint.
        quiet: show no progress.
        verbose: show losses and accuracies during the run too, line by line.

    Raises:
        TrainingError: no run can have that length or seed, or none on this machine that device,
            precision or number of threads.
    """

    iterations: int | None = None
    budget: str | None = None
    seed: int = 0
    data: str | Path | None = None
    device: str = "auto"
    precision: str = "32"
    compiled: bool = False
    threads: int | None = None
    accumulate: int = 1
    resume: bool = False
    quiet: bool = False
    verbose: bool = False

    def __post_init__(self) -> None:
        if self.iterations is not None and self.iterations < 1:
            raise TrainingError(
                f"{self.iterations} iterations are too few",
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
                f"{self.seed} is not a seed",
                where="--seed",
                remedy=f"give a number from 0 to {_SEEDS - 1}",
            )
        if self.budget is not None:
            parse_duration(self.budget)
        require_device(self.device, self.precision, self.threads)

    def accelerator(self) -> Accelerator:
        """Device, precision and processes; this sets the process's threads."""
        return accelerator_for(self.device, self.precision, self.threads)

    @property
    def seconds(self) -> float | None:
        """The budget."""
        return None if self.budget is None else parse_duration(self.budget)

    def configuration(self, device: str) -> dict[str, Any]:
        """What a run that goes on has to share with the one that was stopped.

        Args:
            device: type of the one that is used.
        """
        return {
            "iterations": self.iterations,
            "budget": self.budget,
            "seed": self.seed,
            "precision": self.precision,
            "compiled": self.compiled,
            "accumulate": self.accumulate,
            "device": device,
            "data": None if self.data is None else str(self.data),
        }
