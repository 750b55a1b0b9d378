"""What a user asks for: each option once, for Python, the command line, manifest and report."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, TypeVar

from dreamquant.errors import DreamQuantError, SchemeError, TrainingError
from dreamquant.quantization.choices import (
    Gradient,
    Named,
    Norms,
    Placement,
    Ranges,
    Softmax,
    WeightsRange,
)

# This module serves `dreamquant --help` too, which must not wait for torch.
if TYPE_CHECKING:
    from dreamquant.methods.method import Method
    from dreamquant.quantization.scheme import Bits
from dreamquant.jobs.option import option
from dreamquant.jobs.run_request import JobRequest, RunRequest
from dreamquant.text import parse_points, parse_size

Asked = TypeVar("Asked", bound="JobRequest")
AUTO = "auto"  # bits chosen layer by layer
_RENAMED = {"compiled": "compile", "overrides": "override"}  # in Python alone


@dataclass(frozen=True, kw_only=True)
class QuantizeRequest(RunRequest):
    """All that quantizing can be asked for."""

    bits: str = option(
        "w4a4",
        "Quantization",
        "wNaN",
        "Bits of weights and activations, 2 to 8 each; auto chooses those of each layer's weights "
        "by --size or --max-drop, with activations of 8.",
    )
    size: str | None = option(
        None,
        "Quantization",
        "SIZE",
        "With --bits auto: what the network may take, such as 1.2MB; the least damage within it.",
    )
    max_drop: str | None = option(
        None,
        "Quantization",
        "POINTS",
        "With --bits auto: points of agreement that rounding may cost before recovery; the "
        "smallest network within it.",
    )
    method: str | Method = option(
        "auto",
        "Training",
        "NAME",
        "One that `dreamquant methods` lists, or path/to/file.py:NAME of your own.",
    )
    scheme: Named | None = option(
        None,
        "Quantization",
        "NAME",
        "integer: what integer kernels run, layer inputs quantized, and 8 bits for the image and "
        "what sums and poolings read; paper: as papers count, what leaves each ReLU. By default as "
        "the method has it; auto has integer.",
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
    images: str | None = option(
        None,
        "Training",
        "IMAGES",
        "In place of the method's own, where it keeps its images: a pool of `dreamquant dream`; "
        "procedural, dead-leaves, fractals, pink-noise or noise; or a folder, .tar or .npz of "
        "unlabelled pictures.",
    )
    diagnostics: bool = option(
        False,
        "Result",
        "",
        "Record what the papers diagnose, in numbers and a picture: stagnation, attention, "
        "inconsistency, adaptability; needs the report extra.",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        goals = [name for name in ("size", "max_drop") if getattr(self, name) is not None]
        if (self.bits == AUTO) != (len(goals) == 1):
            given = ", ".join(f"--{name.replace('_', '-')}" for name in goals)
            raise SchemeError(
                "bits are chosen by one goal" if self.bits == AUTO else "a goal chooses bits",
                where=f"--bits {self.bits} {given}".strip(),
                remedy="give --bits auto with either --size or --max-drop",
            )
        _ = self.bytes_allowed, self.points_allowed  # whether they can be read

    @property
    def bytes_allowed(self) -> int | None:
        """What ``--size`` allows.

        Raises:
            SchemeError: it is no size.
        """
        return None if self.size is None else parse_size(self.size)

    @property
    def points_allowed(self) -> float | None:
        """What ``--max-drop`` allows.

        Raises:
            SchemeError: it is no number of points.
        """
        return None if self.max_drop is None else parse_points(self.max_drop)

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


@dataclass(frozen=True, kw_only=True)
class DreamRequest(JobRequest):
    """All that making a pool of images can be asked for.

    Raises:
        TrainingError: beside what every job refuses: there is no pool of so many images.
    """

    method: str | Method = option(
        "hast",
        "Training",
        "NAME",
        "One that `dreamquant methods` lists and that keeps its images; or procedural, "
        "dead-leaves, fractals, pink-noise or noise, which take no time.",
    )
    count: int | None = option(
        None, "Training", "N", "Number of images; by default as the preset has it."
    )
    preset: str = option(
        "quick", "Training", "NAME", "Schedule: quick, paper, or another that the method has."
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.count is not None and self.count < 1:
            raise TrainingError(
                f"{self.count} images are too few", where="--count", remedy="give 1 or more"
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
