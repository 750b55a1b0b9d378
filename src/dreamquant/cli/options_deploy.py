"""The options of the commands for other runtimes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Group, Parameter

from dreamquant.cli.options import flag, number, value

_DEPLOYMENT = Group.create_ordered("Deployment")

ResultFolder = Annotated[Path, Parameter(help="A result folder.")]
Deployed = Annotated[Path, Parameter(help="A result folder, or an exported ONNX file.")]
OnnxFile = Annotated[Path, Parameter(help="An ONNX file that `dreamquant export` wrote.")]
Images = Annotated[Path, Parameter(help="Image files, or folders of them.", negative="")]
To = Annotated[
    Path | None, value(_DEPLOYMENT, "DIR", "Folder for the files; by default the result folder.")
]
Targets = Annotated[
    tuple[Literal["int8box", "int4", "pt2"], ...],
    Parameter(
        group=_DEPLOYMENT,
        name="--target",
        metavar="NAME",
        help=(
            "Kind of file: int8box is the fastest, int4 the smallest, pt2 is a torch.export "
            "program. May be repeated."
        ),
        negative="",
    ),
]
WithPreprocessing = Annotated[
    Literal["nhwc", "nchw"] | None,
    value(
        _DEPLOYMENT,
        "LAYOUT",
        "Make ONNX files that take uint8 images in this layout, nhwc or nchw, and normalise them.",
    ),
]
TwoBit = Annotated[
    bool,
    flag(
        _DEPLOYMENT,
        "Store 2-bit weights as INT2 (opset 25), which few runtimes can read, instead of INT4.",
    ),
]
Top = Annotated[
    int, number(_DEPLOYMENT, "Number of classes to print for each image, the most likely first.")
]
Runtime = Annotated[
    Literal["onnxruntime", "openvino"], value(_DEPLOYMENT, "NAME", "Runtime that runs the file.")
]
RuntimeThreads = Annotated[
    int | None, number(_DEPLOYMENT, "Threads of the runtime; by default as many as PyTorch uses.")
]
Batch = Annotated[int, number(_DEPLOYMENT, "Number of images in each run.")]
Runs = Annotated[int, number(_DEPLOYMENT, "Number of timed runs of each network.")]
