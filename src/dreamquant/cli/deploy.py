"""The commands for other runtimes: export, predict, benchmark."""

from __future__ import annotations

import sys
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dreamquant.cli import options, options_deploy

if TYPE_CHECKING:
    from torch import nn

    from dreamquant.networks.found import Boxes
    from dreamquant.networks.spec import InputSpec


def export(
    result: options_deploy.ResultFolder,
    /,
    *,
    to: options_deploy.To = None,
    target: options_deploy.Targets = ("int8box", "int4"),
    with_preprocessing: options_deploy.WithPreprocessing = None,
    two_bit: options_deploy.TwoBit = False,
    json: options.Json = False,
) -> None:
    """Export a result to verified files for ONNX Runtime, OpenVINO or PyTorch."""
    from dreamquant.cli.tables_deploy import exported_table
    from dreamquant.export.job import export_result

    files = export_result(result, target, to=to, preprocessing=with_preprocessing, two_bit=two_bit)
    if json:
        print(dumps({"files": [file.as_json() for file in files]}))
    else:
        exported_table(files)


def predict(
    target: options_deploy.Deployed,
    /,
    *images: options_deploy.Images,
    top: options_deploy.Top = 3,
    boxes: options.Boxes = None,
    json: options.Json = False,
) -> None:
    """Classify image files (JPEG, PNG and others) with a result or an exported file."""
    from dreamquant.cli.tables_deploy import predictions_list
    from dreamquant.export.predict import predict as say
    from dreamquant.export.predict import read_pictures
    from dreamquant.networks.origins import named_boxes

    model, spec, own = _opened(target)
    pictures = read_pictures(images, spec)
    made = named_boxes(boxes) if boxes else own
    predictions = say(model, pictures, spec, top=top, boxes=made)
    for picture in pictures:
        for note in picture.notes:
            print(f"{picture.path}: {note}", file=sys.stderr)
    if json:
        print(dumps({"predictions": [prediction.as_json() for prediction in predictions]}))
    else:
        predictions_list(predictions)


def benchmark(
    model: options_deploy.OnnxFile,
    /,
    *,
    runtime: options_deploy.Runtime = "onnxruntime",
    threads: options_deploy.RuntimeThreads = None,
    batch: options_deploy.Batch = 1,
    runs: options_deploy.Runs = 50,
    json: options.Json = False,
) -> None:
    """Compare the speed of an exported file with the same network in float32."""
    from dreamquant.cli.tables_deploy import benchmark_table
    from dreamquant.export.benchmark import benchmark as measure

    timed = measure(model, runtime=runtime, threads=threads, batch=batch, runs=runs)
    for reason in timed.warnings:
        print(f"warning: {reason}", file=sys.stderr)
    if json:
        print(dumps(timed.as_json()))
    else:
        benchmark_table(timed, model)


def exported(folder: Path) -> list[dict[str, Any]]:
    """Export a result with the defaults; returns the files as plain JSON values."""
    from dreamquant.export.job import export_result

    return [file.as_json() for file in export_result(folder)]


def require_export() -> None:
    """Check before a long run that its result can be exported.

    Raises:
        ExportError: a package is missing.
    """
    from dreamquant.export.parts import require_export as require

    require()


def exported_network(path: Path) -> tuple[nn.Module, InputSpec]:
    """An exported file in ONNX Runtime, and its input."""
    from dreamquant.export.runtime import open_onnx
    from dreamquant.export.saturation import warn_of_saturation

    network = open_onnx(path)
    if warning := warn_of_saturation(network.model, network.runtime):
        print(f"warning: {warning}", file=sys.stderr)
    return network, network.description.input


def _opened(target: Path) -> tuple[nn.Module, InputSpec, Boxes | None]:
    if target.suffix == ".onnx":
        return *exported_network(target), None
    from dreamquant.results.reopen import open_result

    result = open_result(target)
    return result.model, result.input, result.boxes()
