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
        "Bits of weights and activations, 2 to 8 each. auto chooses the bits of each layer's "
        "weights by --size or --max-drop, and uses 8-bit activations.",
    )
    size: str | None = option(
        None,
        "Quantization",
        "SIZE",
        "With --bits auto: largest size of the network, such as 1.2MB. The bits with the "
        "least error within it are chosen.",
    )
    max_drop: str | None = option(
        None,
        "Quantization",
        "POINTS",
        "With --bits auto: largest loss of agreement by rounding, before recovery, in "
        "percentage points. The smallest network within it is chosen.",
    )
    method: str | Method = option(
        "auto",
        "Training",
        "NAME",
        "A name from `dreamquant methods`, or path/to/file.py:NAME of your own method.",
    )
    scheme: Named | None = option(
        None,
        "Quantization",
        "NAME",
        "integer: for integer kernels; it quantizes layer inputs, and the image and the "
        "inputs of sums and poolings to 8 bits. paper: quantizes the outputs of ReLUs, as "
        "papers do. By default the method decides; auto uses integer.",
    )
    placement: Placement | None = option(
        None,
        "Quantization",
        "WHERE",
        "Which activations are quantized. relu-output: outputs of ReLUs, as papers do; "
        "layer-input: inputs of layers, as integer hardware does; operands: also both "
        "operands of matrix products, as in transformers. By default the method decides.",
    )
    first_last: int | None = option(
        None,
        "Quantization",
        "N",
        "Bits of the first and the last layer, if they differ from --bits.",
    )
    override: tuple[str, ...] = option(
        (),
        "Quantization",
        "PATTERN=wNaN",
        "Other bits for layers with a matching name, such as 'layer1.*=w8a8'. May be repeated.",
    )
    elementwise: int | None = option(
        None,
        "Quantization",
        "N",
        "Bits of the inputs of sums, concatenations and poolings, and fewest bits of the "
        "image, with --placement layer-input. The whole network except its logits can then "
        "run on integers. Without this option, these tensors stay in float.",
        old="joins",
    )
    softmax: Softmax = option(
        "linear",
        "Quantization",
        "GRID",
        "Grid of softmax outputs, with --placement operands: linear, or log2 for powers of two.",
    )
    weights_range: WeightsRange = option(
        "safe",
        "Quantization",
        "RANGE",
        "Range of 7- and 8-bit weights. safe: exact on every x86 processor; full: twice as "
        "many levels, only for processors with VNNI, because other kernels saturate.",
    )
    ranges: Ranges | None = option(
        None,
        "Quantization",
        "HOW",
        "ema: activations have a moving average of their ranges, which is then frozen, and "
        "weights have their min-max; learned: step sizes of both are trained. By default the "
        "preset decides.",
    )
    gradient: Gradient | None = option(
        None,
        "Quantization",
        "HOW",
        "Gradient of rounding: straight-through everywhere, or clipped to zero where a value "
        "was clamped. By default the preset decides.",
    )
    batch_norm: Norms | None = option(
        None,
        "Quantization",
        "HOW",
        "kept: batch norms have the teacher's statistics; re-estimated: their statistics "
        "correct the change that rounding makes to each channel's mean and deviation on "
        "synthetic images. By default the preset decides.",
        old="norms",
    )
    preset: str = option(
        "quick", "Training", "NAME", "Schedule: quick, paper, or another preset of the method."
    )
    images: str | None = option(
        None,
        "Training",
        "IMAGES",
        "Images to use instead of the method's own, for methods that store their images: a "
        "folder from `dreamquant dream`; procedural, dead-leaves, fractals, pink-noise or "
        "noise; or a folder, .tar or .npz of unlabelled pictures.",
    )
    select: float | None = option(
        None,
        "Training",
        "FRACTION",
        "Of the pictures of --images, keep at most this fraction: those that the network is "
        "surest of, without those that take batch-norm statistics away from the stored ones.",
    )
    diagnostics: bool = option(
        False,
        "Result",
        "",
        "Record the problems that papers describe (stagnation, attention, inconsistency, "
        "adaptability) in numbers and a picture. Needs the report extra.",
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
        "A name from `dreamquant methods`, or path/to/file.py:NAME of your own method.",
    )
    inherit: bool = option(
        False,
        "Training",
        "",
        "Start from the teacher's tensors, where the student has a tensor of the same name "
        "and shape.",
    )
    bits: str | None = option(
        None,
        "Quantization",
        "wNaN",
        "Quantize the student after its training; its float weights are saved too.",
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
        "A method from `dreamquant methods` that stores its images; or procedural, "
        "dead-leaves, fractals, pink-noise or noise, which take almost no time.",
    )
    count: int | None = option(
        None, "Training", "N", "Number of images; by default the preset decides."
    )
    preset: str = option(
        "quick", "Training", "NAME", "Schedule: quick, paper, or another preset of the method."
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
