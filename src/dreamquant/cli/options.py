"""The options of the command line: type, group in ``--help``, meaning, and parsing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, make_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias, get_args, get_origin, get_type_hints

from cyclopts import Group, Parameter

from dreamquant.jobs.option import Option
from dreamquant.jobs.request import DistillRequest, DreamRequest, QuantizeRequest
from dreamquant.jobs.run_request import JobRequest
from dreamquant.networks.choices import Kind, current_task

_NETWORK = Group.create_ordered("Network")
_SCHEME = Group.create_ordered("Quantization")
_TRAINING = Group.create_ordered("Training")
RESULT = Group.create_ordered("Result")


def _whole(_: type, tokens: Sequence[Any]) -> int:
    """An integer; cyclopts would round 1.5."""
    text = tokens[0].value
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"{text!r} is no whole number") from None


def _task(_: type, tokens: Sequence[Any]) -> Kind:
    """A task, also by its former name."""
    task = current_task(tokens[0].value)
    if task not in get_args(Kind):
        raise ValueError(f"{task!r} is not one of {', '.join(get_args(Kind))}")
    return task


def value(group: Group, metavar: str, meaning: str) -> Parameter:
    """An option with a value, shown as ``metavar``."""
    return Parameter(group=group, metavar=metavar, help=meaning)


def number(group: Group, meaning: str) -> Parameter:
    """An option with an integer value."""
    return Parameter(group=group, metavar="N", help=meaning, converter=_whole)


def flag(group: Group, meaning: str, *names: str) -> Parameter:
    """An option without a value; ``names`` replace the name of its parameter."""
    name = names or None
    return Parameter(name=name, group=group, help=meaning, negative="", show_default=False)


Network = Annotated[
    str,
    Parameter(
        help=(
            "torchvision:NAME, timm:NAME, pytorchcv:NAME, path/to/file.onnx, or "
            "path/to/file.py:FACTORY, your function that returns the network; "
            "file.py:Net(width=0.5) calls it with literal arguments."
        )
    ),
]
Target = Annotated[
    str,
    Parameter(help="A result folder, or a network in the form that `dreamquant quantize` takes."),
]

Student = Annotated[
    str,
    Parameter(
        group=_NETWORK,
        metavar="NETWORK",
        help=(
            "The architecture to train, named in the same form as the teacher; it starts from new"
            " weights."
        ),
    ),
]
Weights = Annotated[
    Path | None,
    value(
        _NETWORK,
        "FILE",
        "File of its weights (safetensors or PyTorch), if they are not the pretrained ones; "
        "FILE#ema picks one of several state dicts in the file.",
    ),
]
TeachersWeights = Annotated[
    Path | None,
    value(
        _NETWORK,
        "FILE",
        "File of the network's weights, if they are not the pretrained ones; for a result, "
        "its teacher's weights, if their file has moved.",
    ),
]
Shape = Annotated[
    str | None,
    value(
        _NETWORK,
        "CxHxW",
        "Channels, height and width of its input, such as 3x32x32, or the sides of a feature "
        "map, such as 98x40. Needed where neither a zoo nor the file states them.",
    ),
]
Mean = Annotated[
    str | None,
    value(
        _NETWORK,
        "R,G,B",
        "Mean that its input is normalised by: a number for each channel, for pixels in [0, 1].",
    ),
    Parameter(allow_leading_hyphen=True),
]
Std = Annotated[
    str | None,
    value(
        _NETWORK, "R,G,B", "Standard deviation that its input is normalised by, in the same form."
    ),
]
Classes = Annotated[int | None, number(_NETWORK, "Number of classes that the network must have.")]
Task = Annotated[
    Kind | None,
    value(
        _NETWORK,
        "NAME",
        "Meaning of its outputs: classification, multi-label, segmentation, or regression for "
        "any other outputs, such as those of a detector. By default it is guessed from the "
        "shape of the output.",
    ),
    Parameter(converter=_task),
]
Features = Annotated[
    bool | None,
    Parameter(
        name="--features",
        negative="--pixels",
        group=_NETWORK,
        help=(
            "Whether its input is features, such as a spectrum, or pixels. By default the "
            "network's file or the shape of the input decides."
        ),
        show_default=False,
    ),
]
Bgr = Annotated[
    bool,
    flag(
        _NETWORK,
        "The channels of its input are blue, green, red, as OpenCV reads images; the values "
        "of --mean and --std have this order too. BGR = True in the network's file has the "
        "same effect.",
    ),
]

Out = Annotated[Path, value(RESULT, "DIR", "Folder for the result; it must not contain one yet.")]
DemoOut = Annotated[
    Path, value(RESULT, "DIR", "Folder for the result; the result of an earlier demo is replaced.")
]
PoolOut = Annotated[
    Path, value(RESULT, "POOL", "Folder for the images; it must not contain any yet.")
]
DemoTransformer = Annotated[
    bool,
    flag(_NETWORK, "Quantize the embedded transformer instead, to W4A4 with PSAQ-ViT, in seconds."),
]
MeasuredImages = Annotated[str | None, Parameter(help="The same as --data.")]
MeasuredData = Annotated[
    str | None,
    value(
        RESULT,
        "IMAGES",
        "A folder of class folders, an .npz, a .tar, or torchvision:CIFAR10:ROOT; without labels, "
        "only agreement with the teacher is measured.",
    ),
]
Boxes = Annotated[
    str | None,
    value(
        RESULT,
        "FILE.py:NAME",
        "Function that converts a detector's outputs to boxes (images, boxes, 6): corners relative "
        "to the image, score, class; by default the function boxes in the network's file.",
    ),
]
Limit = Annotated[int | None, number(RESULT, "Use only this number of images, from the first.")]
Quiet = Annotated[
    bool,
    flag(RESULT, "Print only errors, and the output of --json.", "--quiet", "-q"),
]
Verbose = Annotated[
    bool,
    flag(
        RESULT,
        "Print losses, speed and accuracies during the run too, line by line.",
        "--verbose",
        "-v",
    ),
]
Json = Annotated[
    bool, flag(RESULT, "Print one JSON object on standard output, and nothing else there.")
]
Export = Annotated[
    bool, flag(RESULT, "Also export it: the ONNX files of `dreamquant export` with its defaults.")
]


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Expected:
    """Input and task of a network, as texts; for every command that opens a network."""

    input: Shape = None
    mean: Mean = None
    std: Std = None
    classes: Classes = None
    task: Task = None
    features: Features = None
    bgr: Bgr = False


def _flags(request: type[JobRequest]) -> Any:
    """The class for parsed options: the fields of a request, as options."""
    hints = get_type_hints(request, localns={"Method": str, "Accelerator": Any})
    own = [
        (each.name, _annotated(each, hints[each.name]), each.default) for each in fields(request)
    ]
    made = make_dataclass(request.__name__, own, frozen=True, kw_only=True)
    made.__module__ = __name__  # with the module of make_dataclass it would look like a builtin
    return Parameter(name="*")(made)


def _annotated(each: Any, hint: Any) -> Any:
    shown: Option = each.metadata["option"]
    group = {"Quantization": _SCHEME, "Training": _TRAINING, "Result": RESULT}[shown.group]
    names = [f"--{each.name.replace('_', '-')}"]
    # Cyclopts shows the first name; the others are names of earlier versions.
    names += [f"--{shown.old.replace('_', '-')}"] if shown.old else []
    names += [f"-{shown.short}"] if shown.short else []
    if not shown.metavar:
        return Annotated[hint, flag(group, shown.meaning, *names)]
    whole = _whole if int in (hint, *get_args(hint)) else None
    many = get_origin(hint) is tuple
    hint = str | None if each.name == "data" else str if each.name == "method" else hint
    return Annotated[
        hint,
        Parameter(
            name=names,
            group=group,
            metavar=shown.metavar,
            help=shown.meaning,
            converter=whole,
            negative="" if many else None,
            show_default=False if many else None,
        ),
    ]


if TYPE_CHECKING:
    Quantizing: TypeAlias = QuantizeRequest
    Distilling: TypeAlias = DistillRequest
    Dreaming: TypeAlias = DreamRequest
else:
    Quantizing, Distilling = _flags(QuantizeRequest), _flags(DistillRequest)
    Dreaming = _flags(DreamRequest)
