"""The options of the commands that bring a result to other runtimes."""

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
    Path | None, value(_DEPLOYMENT, "DIR", "Folder for the files, where not the result's.")
]
Targets = Annotated[
    tuple[Literal["int8box", "int4", "pt2"], ...],
    Parameter(
        group=_DEPLOYMENT,
        name="--target",
        metavar="NAME",
        help="int8box is the fast one, int4 the small one, pt2 a torch.export program; may be "
        "repeated.",
        negative="",
    ),
]
WithPreprocessing = Annotated[
    Literal["nhwc", "nchw"] | None,
    value(
        _DEPLOYMENT,
        "LAYOUT",
        "Let the ONNX files take uint8 images of this layout, nhwc or nchw, and normalise them.",
    ),
]
TwoBit = Annotated[
    bool,
    flag(
        _DEPLOYMENT,
        "Store weights of 2 bits in INT2 (opset 25), which few runtimes read; in INT4 otherwise.",
    ),
]
Top = Annotated[int, number(_DEPLOYMENT, "So many classes an image, the likeliest first.")]
Runtime = Annotated[
    Literal["onnxruntime", "openvino"], value(_DEPLOYMENT, "NAME", "That runs the file.")
]
RuntimeThreads = Annotated[
    int | None, number(_DEPLOYMENT, "Of the runtime; as many as PyTorch takes where not given.")
]
Batch = Annotated[int, number(_DEPLOYMENT, "Images a run.")]
Runs = Annotated[int, number(_DEPLOYMENT, "So many timed runs of either network.")]
