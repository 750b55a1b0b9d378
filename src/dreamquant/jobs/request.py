"""What a user asks for: each option once, for Python, the command line, manifest and report."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from dreamquant.errors import DreamQuantError, SchemeError, TrainingError
from dreamquant.quantization.choices import (
    Gradient,
    Norms,
    Placement,
    Ranges,
    Softmax,
    WeightsRange,
)
from dreamquant.text import parse_duration

# This module serves `dreamquant --help` too, which must not wait for torch.
if TYPE_CHECKING:
    from accelerate import Accelerator

    from dreamquant.methods.method import Method
    from dreamquant.quantization.scheme import Bits

_SEEDS = 2**32  # as many as NumPy takes; torch takes more
Asked = TypeVar("Asked", bound="RunRequest")
Group = Literal["Quantization", "Training", "Result"]


@dataclass(frozen=True)
class Option:
    """How an option is shown.

    Attributes:
        meaning: a sentence or two.
        group: heading that it stands under.
        metavar: of its value; empty for a switch.
        old: its name in earlier versions, still taken.
        short: its short form on the command line.
    """

    meaning: str
    group: Group
    metavar: str = ""
    old: str = ""
    short: str = ""


def option(default: Any, group: Group, metavar: str, meaning: str, **more: str) -> Any:
    """A field that is an option."""
    return field(default=default, metadata={"option": Option(meaning, group, metavar, **more)})


@dataclass(frozen=True, kw_only=True)
class RunRequest:
    """Length, device, precision and output of a run; a value that validates and does nothing else.

    Raises:
        TrainingError: no run can have that length or seed, or none on this machine that device,
            precision or number of threads.
    """

    iterations: int | None = option(
        None, "Training", "N", "Stretch or squeeze the method to this many iterations."
    )
    budget: str | None = option(
        None, "Training", "TIME", "Fit the method to this machine and a duration, such as 5min."
    )
    seed: int = option(0, "Training", "N", "Random seed.")
    data: str | Path | None = option(
        None,
        "Result",
        "IMAGES",
        "Images to measure on, never to train on: a folder of class folders, an .npz, a .tar, or "
        "torchvision:CIFAR10:ROOT.",
    )
    device: Literal["auto", "cpu", "cuda"] = option(
        "auto", "Training", "NAME", "auto takes a GPU where there is one."
    )
    precision: Literal["auto", "32", "bf16"] = option(
        "auto",
        "Training",
        "NAME",
        "While training. auto takes bf16 where the hardware computes with it, and 32 elsewhere; a "
        "resumed run keeps its own.",
    )
    compile: bool = option(
        False,
        "Training",
        "",
        "Compile the networks first: a minute or two, then quicker steps; for long runs.",
    )
    threads: int | None = option(
        None, "Training", "N", "Threads of this process; by default one per core."
    )
    micro_batches: int = option(
        1,
        "Training",
        "N",
        "Take each batch in this many parts and add their gradients, where memory is small. What "
        "is computed over a batch, such as its statistics, is then computed over each part.",
        old="accumulate",
    )
    resume: bool = option(
        False,
        "Result",
        "",
        "Go on with the stopped run in --out, with the same options; start where nothing was "
        "saved yet.",
    )
    quiet: bool = option(
        False, "Result", "", "Print only errors, and what --json asks for.", short="q"
    )
    verbose: bool = option(
        False,
        "Result",
        "",
        "Print losses, speed and accuracies during the run too, line by line.",
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

    def run_options(self) -> dict[str, Any]:
        """The options that every kind of job has."""
        return {each.name: getattr(self, each.name) for each in fields(RunRequest)}


_RENAMED = {"compiled": "compile", "overrides": "override"}  # in Python alone
_ALWAYS = ("bits", "method", "seed")
# They change nothing of a result.
_SAYS_NOTHING = ("resume", "quiet", "verbose", "threads")


@dataclass(frozen=True, kw_only=True)
class QuantizeRequest(RunRequest):
    """All that quantizing can be asked for."""

    bits: str = option(
        "w4a4", "Quantization", "wNaN", "Bits of weights and activations, 2 to 8 each."
    )
    method: str | Method = option(
        "adadfq",
        "Training",
        "NAME",
        "One that `dreamquant methods` lists, or path/to/file.py:NAME of your own.",
    )
    placement: Placement | None = option(
        None,
        "Quantization",
        "WHERE",
        "Which activations are quantized. relu-output: what leaves each ReLU, as the papers do; "
        "layer-input: what enters each layer, as integer hardware does; operands: both factors of "
        "every matrix product too, as transformers have them. By default as the method has it.",
    )
    first_last: int | None = option(
        None, "Quantization", "N", "Bits of the first and the last layer, where other than --bits."
    )
    override: tuple[str, ...] = option(
        (),
        "Quantization",
        "PATTERN=wNaN",
        "Other bits for layers whose name matches, such as 'layer1.*=w8a8'; may be repeated.",
    )
    elementwise: int | None = option(
        None,
        "Quantization",
        "N",
        "Bits of what sums, concatenations and poolings read, and at least of the image, with "
        "--placement layer-input: all but the logits can then run on integers. Without it these "
        "stay in float.",
        old="joins",
    )
    softmax: Softmax = option(
        "linear",
        "Quantization",
        "GRID",
        "Grid of what softmax gives, with --placement operands: linear, or log2 for powers of two.",
    )
    weights_range: WeightsRange = option(
        "safe",
        "Quantization",
        "RANGE",
        "Range of 7- and 8-bit weights. safe: exact on every x86 processor; full: twice the "
        "levels, for processors with VNNI, because kernels without it saturate.",
    )
    ranges: Ranges | None = option(
        None,
        "Quantization",
        "HOW",
        "ema: a moving average of activations' ranges, then frozen, and min-max of weights; "
        "learned: step sizes of both are trained. By default as the preset has it.",
    )
    gradient: Gradient | None = option(
        None,
        "Quantization",
        "HOW",
        "Gradient through the rounding: straight-through everywhere, or clipped to zero where a "
        "value was clamped. By default as the preset has it.",
    )
    batch_norm: Norms | None = option(
        None,
        "Quantization",
        "HOW",
        "kept: the teacher's statistics; re-estimated: they undo what rounding did to each "
        "channel's mean and deviation on synthetic images. By default as the preset has it.",
        old="norms",
    )
    preset: str = option(
        "quick", "Training", "NAME", "Schedule: quick, paper, or another that the method has."
    )
    diagnostics: bool = option(
        False,
        "Result",
        "",
        "Record what the papers diagnose, in numbers and a picture: stagnation, attention, "
        "inconsistency, adaptability; needs the report extra.",
    )

    @property
    def overrides(self) -> tuple[tuple[str, Bits], ...]:
        """Layer patterns and their bits.

        Raises:
            SchemeError: a text does not name bits.
        """
        return tuple(_parse_override(text) for text in self.override)


@dataclass(frozen=True, kw_only=True)
class DistillRequest(RunRequest):
    """All that distilling can be asked for."""

    method: str | Method = option(
        "adadfq",
        "Training",
        "NAME",
        "One that `dreamquant methods` lists, or path/to/file.py:NAME of your own.",
    )
    inherit: bool = option(
        False,
        "Training",
        "",
        "Start from the teacher's tensors where name and shape are the student's too.",
    )
    bits: str | None = option(
        None,
        "Quantization",
        "wNaN",
        "Quantize the student afterwards; its float weights are kept too.",
    )


def asked(kind: type[Asked], given: Mapping[str, Any]) -> Asked:
    """A request from options by name; names of earlier versions are taken too.

    Raises:
        DreamQuantError: there is no such option; it names the nearest.
    """
    known = {each.name for each in fields(kind)}
    old = {each.metadata["option"].old: each.name for each in fields(kind)} | _RENAMED
    named = {old.get(name, name): value for name, value in given.items()}
    for name in named:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0)
            raise DreamQuantError(
                f"there is no option {name!r}",
                where=", ".join(given),
                remedy=f"did you mean {near[0]!r}?",
            )
    if named.get("batch_norm") == "matched":
        named["batch_norm"] = "re-estimated"
    if "override" in named:
        named["override"] = tuple(_override_text(each) for each in named["override"])
    return kind(**named)


def _override_text(override: str | tuple[str, str]) -> str:
    return override if isinstance(override, str) else "=".join(override)


def _parse_override(override: str) -> tuple[str, Bits]:
    pattern, equals, bits = override.partition("=")
    if not equals:
        raise SchemeError(
            f"{override!r} does not name bits", where="--override", remedy="write PATTERN=w8a8"
        )
    from dreamquant.quantization.scheme import Bits

    return pattern, Bits.parse(bits)


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, tuple):
        return list(value)
    return value if value is None or isinstance(value, (str, int)) else _name_to_ask_for(value)


def _name_to_ask_for(method: Method) -> str | None:
    from dreamquant.methods import find_method

    try:
        return method.name if find_method(method.name) == method else None
    except DreamQuantError:
        return None
