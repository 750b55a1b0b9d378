"""The options that every kind of job has, and how a request is put on record."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from dreamquant.errors import DreamQuantError, TrainingError
from dreamquant.text import parse_duration

# This module serves `dreamquant --help` too, which must not wait for torch.
if TYPE_CHECKING:
    from accelerate import Accelerator

    from dreamquant.methods.method import Method
from dreamquant.jobs.option import option

_SEEDS = 2**32  # as many as NumPy takes; torch takes more


@dataclass(frozen=True, kw_only=True)
class JobRequest:
    """Length, device and precision of a job; a value that validates and does nothing else.

    Raises:
        TrainingError: no run can have that length or seed, or none on this machine that device,
            precision or number of threads.
    """

    iterations: int | None = option(
        None,
        "Training",
        "N",
        "Number of iterations; the method's schedule is stretched or shortened to it.",
    )
    budget: str | None = option(
        None,
        "Training",
        "TIME",
        "Time that the whole command may take, such as 5min; the method's schedule is fitted "
        "to it.",
    )
    seed: int = option(0, "Training", "N", "Random seed.")
    device: Literal["auto", "cpu", "cuda"] = option(
        "auto", "Training", "NAME", "Device; auto uses a GPU if there is one."
    )
    precision: Literal["auto", "32", "bf16"] = option(
        "auto",
        "Training",
        "NAME",
        "Precision of training. auto uses bf16 where the hardware computes with it, and 32 "
        "elsewhere; a resumed run keeps its precision.",
    )
    compile: bool = option(
        False,
        "Training",
        "",
        "Compile the networks first. It takes a minute or two and makes steps faster, which "
        "pays off in long runs.",
    )
    threads: int | None = option(
        None, "Training", "N", "Threads of this process; by default one per core."
    )
    resume: bool = option(
        False,
        "Result",
        "",
        "Continue the stopped run in --out, with the same options; start it if nothing was "
        "saved yet.",
    )
    quiet: bool = option(
        False, "Result", "", "Print only errors, and what --json asks for.", short="q"
    )
    verbose: bool = option(
        False,
        "Result",
        "",
        "Also print losses, speed and accuracies during the run, line by line.",
        short="v",
    )

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
        from dreamquant.training.devices import require_device

        require_device(self.device, self.precision, self.threads)

    def accelerator(self) -> Accelerator:
        """Device, precision and processes; this sets the process's threads."""
        from dreamquant.training.devices import accelerator_for

        return accelerator_for(self.device, self.precision, self.threads)

    @property
    def seconds(self) -> float | None:
        """The budget."""
        return None if self.budget is None else parse_duration(self.budget)

    @property
    def accumulate(self) -> int:
        """Micro-batches that each process takes its part of a batch in."""
        return 1

    def record(self) -> dict[str, Any]:
        """What was asked for, options at their defaults left out, as plain values.

        A method given in memory that is not one of the package's has no name that could be asked
        for again: it is on record as ``None``.
        """
        return {
            each.name: _plain(getattr(self, each.name))
            for each in fields(self)
            if self._says_something(each.name, each.default)
        }

    def _says_something(self, name: str, default: Any) -> bool:
        value = getattr(self, name)
        if name in _ALWAYS:
            return value is not None
        return name not in _SAYS_NOTHING and value != default

    def configuration(self, device: str) -> dict[str, Any]:
        """What a run that goes on has to share with the one that was stopped.

        Args:
            device: type of the one that is used.
        """
        asked = {each.name: _plain(getattr(self, each.name)) for each in fields(self)}
        shared = {name: value for name, value in asked.items() if name not in _SAYS_NOTHING}
        return {**shared, "device": device}


@dataclass(frozen=True, kw_only=True)
class RunRequest(JobRequest):
    """A job that trains a student and measures it."""

    data: str | Path | None = option(
        None,
        "Result",
        "IMAGES",
        "Images to measure on, never to train on: a folder of class folders, an .npz, a .tar, or "
        "torchvision:CIFAR10:ROOT.",
    )
    micro_batches: int = option(
        1,
        "Training",
        "N",
        "Take each batch in this many parts and add their gradients, where memory is small. What "
        "is computed over a batch, such as its statistics, is then computed over each part.",
        old="accumulate",
    )

    @property
    def accumulate(self) -> int:
        """As asked for."""
        return self.micro_batches

    def run_options(self) -> dict[str, Any]:
        """The options that every job that trains has."""
        return {each.name: getattr(self, each.name) for each in fields(RunRequest)}


_ALWAYS = ("bits", "method", "count", "seed")
# They change nothing of a result.
_SAYS_NOTHING = ("resume", "quiet", "verbose", "threads")


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, tuple):
        return list(value)
    return (
        value if value is None or isinstance(value, (str, int, float)) else _name_to_ask_for(value)
    )


def _name_to_ask_for(method: Method) -> str | None:
    from dreamquant.methods import find_method

    try:
        return method.name if find_method(method.name) == method else None
    except DreamQuantError:
        return None
