"""The options of the command line: type, place in ``--help``, meaning, and how texts are read."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Group, Parameter

from dreamquant.errors import DataError, NetworkError, SchemeError

_NETWORK = Group.create_ordered("Network")
_SCHEME = Group.create_ordered("Quantization")
_TRAINING = Group.create_ordered("Training")
_RESULT = Group.create_ordered("Result")


_SIDE = re.compile("[0-9]{1,9}")


def _whole(_: type, tokens: Sequence[Any]) -> int:
    """A whole number; cyclopts itself would round 1.5."""
    text = tokens[0].value
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"{text!r} is no whole number") from None


def value(group: Group, metavar: str, meaning: str) -> Parameter:
    """An option that takes a value, shown as ``metavar``."""
    return Parameter(group=group, metavar=metavar, help=meaning)


def number(group: Group, meaning: str) -> Parameter:
    """An option that takes a whole number."""
    return Parameter(group=group, metavar="N", help=meaning, converter=_whole)


def flag(group: Group, meaning: str, *names: str) -> Parameter:
    """An option that takes nothing; ``names`` where not that of its parameter."""
    name = names or None
    return Parameter(name=name, group=group, help=meaning, negative="", show_default=False)


Network = Annotated[
    str,
    Parameter(
        help="torchvision:NAME, timm:NAME, pytorchcv:NAME, or path/to/file.py:FACTORY of your own, "
        "a function that returns the network."
    ),
]
Target = Annotated[
    str, Parameter(help="A result folder, or a network as `dreamquant quantize` takes it.")
]

Student = Annotated[
    str,
    Parameter(
        group=_NETWORK,
        metavar="NETWORK",
        help="The architecture to train, named like the teacher; it starts from fresh weights.",
    ),
]
Weights = Annotated[
    Path | None,
    value(_NETWORK, "FILE", "Its weights, safetensors or torch, where not the pretrained ones."),
]
TeachersWeights = Annotated[
    Path | None,
    value(
        _NETWORK,
        "FILE",
        "Of a network, where not the pretrained ones; of a result: its teacher's, where their file "
        "has moved.",
    ),
]
Shape = Annotated[
    str | None,
    value(
        _NETWORK,
        "CxHxW",
        "Channels, height and width of its input, such as 3x32x32, where no zoo knows them.",
    ),
]
Mean = Annotated[
    str | None,
    value(_NETWORK, "R,G,B", "Mean of its input: a number per channel, for pixels in [0, 1]."),
    Parameter(allow_leading_hyphen=True),
]
Std = Annotated[str | None, value(_NETWORK, "R,G,B", "Standard deviation, likewise.")]
Classes = Annotated[int | None, number(_NETWORK, "Number of classes it must have.")]

Bits = Annotated[str, value(_SCHEME, "wNaN", "Of weights and activations, 2 to 8 each.")]
Inherit = Annotated[
    bool,
    flag(_NETWORK, "Start from the teacher's tensors where name and shape are the student's too."),
]
BitsAfterwards = Annotated[
    str | None,
    value(_SCHEME, "wNaN", "Quantize the student afterwards; its float weights are kept too."),
]
Placement = Annotated[
    Literal["relu-output", "layer-input"],
    value(
        _SCHEME,
        "WHERE",
        "Which activations: what leaves each ReLU, as the papers do, or what enters each layer, as "
        "integer hardware does.",
    ),
]
FirstLast = Annotated[
    int | None, number(_SCHEME, "Bits of the first and the last layer, where other than --bits.")
]
Overrides = Annotated[
    tuple[str, ...],
    Parameter(
        group=_SCHEME,
        metavar="PATTERN=wNaN",
        help="Other bits for layers whose name matches, such as 'layer1.*=w8a8'; may be repeated.",
        negative="",
        show_default=False,
    ),
]
Joins = Annotated[
    int | None,
    number(
        _SCHEME,
        "Bits of what sums, concatenations and poolings read, and at least of the image, with "
        "--placement layer-input: then all but the logits can run on integers. In float where not "
        "given.",
    ),
]

Ranges = Annotated[
    Literal["ema", "learned"] | None,
    value(
        _SCHEME,
        "HOW",
        "ema: a moving average of activations' ranges, then frozen, and min-max of weights; "
        "learned: step sizes of both are trained; as the preset has it where not given.",
    ),
]
Gradient = Annotated[
    Literal["straight-through", "clipped"] | None,
    value(_SCHEME, "HOW", "Through the rounding; likewise."),
]
Norms = Annotated[
    Literal["kept", "re-estimated", "matched"] | None,
    value(
        _SCHEME,
        "HOW",
        "Batch norms: kept has the teacher's statistics; re-estimated makes them undo what "
        "rounding did to each channel's mean and deviation on synthetic images; likewise.",
    ),
]

Method = Annotated[
    str,
    value(
        _TRAINING,
        "NAME",
        "One that `dreamquant methods` lists, or path/to/file.py:NAME of your own.",
    ),
]
Preset = Annotated[
    str, value(_TRAINING, "NAME", "Schedule: quick, paper, or another that the method has.")
]
Budget = Annotated[
    str | None,
    value(_TRAINING, "TIME", "Fit the schedule to this machine and a duration, such as 5min."),
]
Iterations = Annotated[
    int | None, number(_TRAINING, "Stretch or squeeze the schedule to so many iterations.")
]
Seed = Annotated[int, number(_TRAINING, "Of everything random.")]
Device = Annotated[
    Literal["auto", "cpu", "cuda"],
    value(_TRAINING, "NAME", "auto takes a GPU where there is one."),
]
Precision = Annotated[
    Literal["32", "bf16"],
    value(_TRAINING, "NAME", "While training; bf16 where the hardware is faster at it."),
]
Compile = Annotated[
    bool,
    flag(
        _TRAINING,
        "Compile the networks first: a minute or two, then quicker steps; for long runs.",
        "--compile",
    ),
]
Threads = Annotated[int | None, number(_TRAINING, "Of this process; without it, one per core.")]
Accumulate = Annotated[
    int,
    number(_TRAINING, "Take each batch in so many parts, where memory is small."),
]

Out = Annotated[Path, value(_RESULT, "DIR", "Folder for the result; it must not hold one yet.")]
DemoOut = Annotated[
    Path, value(_RESULT, "DIR", "Folder for the result; that of an earlier demo is replaced.")
]
Data = Annotated[
    str | None,
    value(
        _RESULT,
        "IMAGES",
        "To measure on, never to train on: a folder of class folders, an .npz, a .tar, or "
        "torchvision:CIFAR10:ROOT.",
    ),
]
MeasuredImages = Annotated[str | None, Parameter(help="The same as --data.")]
MeasuredData = Annotated[
    str | None,
    value(
        _RESULT,
        "IMAGES",
        "A folder of class folders, an .npz, a .tar, or torchvision:CIFAR10:ROOT; without labels, "
        "only agreement with the teacher is measured.",
    ),
]
Limit = Annotated[int | None, number(_RESULT, "Use only the first so many images.")]
Resume = Annotated[
    bool,
    flag(
        _RESULT,
        "Go on with the stopped run in --out, with the same options; from its start where nothing "
        "was saved yet.",
    ),
]
Quiet = Annotated[
    bool,
    flag(_RESULT, "Print nothing but errors, and what --json asks for.", "--quiet", "-q"),
]
Verbose = Annotated[
    bool,
    flag(
        _RESULT,
        "Print losses, speed and accuracies on the way too, line by line.",
        "--verbose",
        "-v",
    ),
]
Diagnostics = Annotated[
    bool,
    flag(
        _RESULT,
        "Record what the papers diagnose, in numbers and a picture: stagnation, attention, "
        "inconsistency, adaptability; needs the report extra.",
    ),
]
Json = Annotated[
    bool, flag(_RESULT, "Print one JSON object on standard output, and nothing else there.")
]
Export = Annotated[
    bool, flag(_RESULT, "Also export it: the ONNX files of `dreamquant export` with its defaults.")
]


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Expected:
    """What a network expects and yields, as texts: of every command that opens one."""

    input: Shape = None
    mean: Mean = None
    std: Std = None
    classes: Classes = None


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Running:
    """How a job is run: what :class:`dreamquant.jobs.settings.Running` is made of."""

    budget: Budget = None
    iterations: Iterations = None
    seed: Seed = 0
    device: Device = "auto"
    precision: Precision = "32"
    compiled: Compile = False
    threads: Threads = None
    accumulate: Accumulate = 1
    data: Data = None
    resume: Resume = False
    quiet: Quiet = False
    verbose: Verbose = False


def parse_shape(text: str) -> tuple[int, int, int]:
    """Channels, height and width of ``3x32x32``.

    Raises:
        NetworkError: the text is not of that form.
    """
    parts = text.lower().split("x")
    if len(parts) != 3 or not all(_SIDE.fullmatch(part) for part in parts):
        raise NetworkError(
            f"{text!r} is no input shape", where="--input", remedy="give CxHxW, as 3x32x32"
        )
    channels, height, width = map(int, parts)
    return channels, height, width


def parse_numbers(text: str, option: str) -> tuple[float, ...]:
    """The numbers of a list such as ``0.485,0.456,0.406``.

    Raises:
        NetworkError: it names ``option``, for the text is no such list.
    """
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise NetworkError(
            f"{text!r} is no list of numbers",
            where=option,
            remedy="separate them by commas, as 0.485,0.456,0.406",
        ) from error


def parse_override(override: str) -> tuple[str, str]:
    """Pattern and bits of ``layer1.*=w8a8``.

    Raises:
        SchemeError: the text names no bits.
    """
    pattern, equals, bits = override.partition("=")
    if not equals:
        raise SchemeError(
            f"{override!r} names no bits", where="--override", remedy="write PATTERN=w8a8"
        )
    return pattern, bits


def one_of(images: str | None, data: str | None) -> str:
    """The images to measure on, given in either place.

    Raises:
        DataError: they are given in neither, or in both.
    """
    if images is not None and data is not None:
        raise DataError(
            "images are given twice", where=f"{images}, --data {data}", remedy="give them once"
        )
    if images is None and data is None:
        raise DataError(
            "there are no images to measure on",
            where="dreamquant evaluate",
            remedy="give --data IMAGES",
        )
    return images or data or ""
