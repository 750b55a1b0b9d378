"""The command line: it parses options, calls the Python interface, and prints results.

A command imports its large packages itself, so that ``--help`` is fast.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter

from dreamquant.cli import deploy, options, reading
from dreamquant.cli.ending import note, resumable, run
from dreamquant.cli.report import report
from dreamquant.cli.sweep import compare, sweep
from dreamquant.errors import DataError, MethodError, ResultError

if TYPE_CHECKING:
    from torch import nn

    from dreamquant.networks.load import Network
    from dreamquant.networks.spec import InputSpec
    from dreamquant.results.result import Result

app = App(
    name="dreamquant",
    help="Quantize a trained vision network without any of its training data.",
    help_format="plaintext",
    suppress_keyboard_interrupt=False,
)

_ANYTHING = options.Expected()
_QUANTIZING, _DISTILLING = options.Quantizing(), options.Distilling()
_DREAMING = options.Dreaming()


@app.command(sort_key=0)
def quantize(
    network: options.Network,
    /,
    *,
    out: options.Out,
    weights: options.Weights = None,
    expected: options.Expected = _ANYTHING,
    request: options.Quantizing = _QUANTIZING,
    export: options.Export = False,
    json: options.Json = False,
) -> None:
    """Quantize a trained network without any of its training data."""
    with resumable(out, "--resume"):
        from dreamquant.jobs import quantize as job

        if export:
            deploy.require_export()
        named = _named_network(network, weights, expected)
        result = job.quantize(named, out=out, rehearse_export=export, **vars(request))
    _present(result, out, as_json=json, quiet=request.quiet, export=export)


@app.command(sort_key=1)
def distill(
    teacher: options.Network,
    /,
    *,
    student: options.Student,
    out: options.Out,
    weights: options.Weights = None,
    expected: options.Expected = _ANYTHING,
    request: options.Distilling = _DISTILLING,
    json: options.Json = False,
) -> None:
    """Train a smaller network to imitate a trained one, without any training data."""
    with resumable(out, "--resume"):
        from dreamquant.jobs import distill as job

        network = _named_network(teacher, weights, expected)
        result = job.distill(network, student, out=out, **vars(request))
    _present(result, out, as_json=json, quiet=request.quiet)


@app.command(sort_key=1)
def dream(
    network: options.Network,
    /,
    *,
    out: options.PoolOut,
    weights: options.Weights = None,
    expected: options.Expected = _ANYTHING,
    request: options.Dreaming = _DREAMING,
    json: options.Json = False,
) -> None:
    """Make a method's images once and store them, for use by `dreamquant quantize --images`."""
    with resumable(out, "--resume"):
        from dreamquant.jobs import dream as job

        named = _named_network(network, weights, expected)
        pool = job.dream(named, out=out, **vars(request))
    if json:
        _print_json({"out": str(out), **pool.summary()})
    elif not request.quiet:
        from dreamquant.cli.tables import pool_table

        pool_table(pool.summary(), out)


@app.command(sort_key=2)
def evaluate(
    target: options.Target,
    images: options.MeasuredImages = None,
    /,
    *,
    data: options.MeasuredData = None,
    limit: options.Limit = None,
    weights: options.TeachersWeights = None,
    boxes: options.Boxes = None,
    expected: options.Expected = _ANYTHING,
    json: options.Json = False,
) -> None:
    """Measure scores of a result or a network on images, and its agreement with the teacher."""
    from dreamquant.cli.tables import evaluation_table
    from dreamquant.evaluation.data import open_images
    from dreamquant.evaluation.metrics import evaluate as measure
    from dreamquant.jobs.progress import counting
    from dreamquant.networks.origins import named_boxes

    data = reading.one_of(images, data)
    foreign = target.endswith(".onnx") and expected != _ANYTHING
    if target.endswith(".onnx") and not foreign:
        model, spec, teacher, own = *deploy.exported_network(Path(target)), None, None
    elif foreign or (":" in target and not Path(target).is_dir()):
        net = _named_network(target, weights, expected)
        model, spec, teacher, own = net.module, net.input, None, net.boxes
    else:
        reading.refuse(expected)
        model, spec, teacher, own = _saved_student(Path(target), weights)
    made = named_boxes(boxes) if boxes else own
    opened = open_images(data, spec, limit=limit, boxes=made)
    if not opened.labelled and teacher is None:
        raise _nothing_to_measure(data)
    with counting("measuring", len(opened)) as count:
        evaluation = measure(model, opened, teacher=teacher, on_batch=count)
    if json:
        _print_json(evaluation.as_json())
    else:
        evaluation_table(evaluation, target)


for _command in (deploy.export, deploy.predict, deploy.benchmark):
    app.command(_command, sort_key=3)


@app.command(sort_key=4)
def methods(
    name: Annotated[str | None, Parameter(help="Name of a method, to show its page.")] = None, /
) -> None:
    """List the methods, or show one with its terms, weights, schedules and provenance."""
    from dreamquant.cli.method_pages import method_page, methods_table
    from dreamquant.methods import METHODS, find_method

    if name is None:
        methods_table(METHODS.values())
        return
    try:
        method = find_method(name)
    except MethodError as error:
        raise MethodError(error.what, where="dreamquant methods", remedy=error.remedy) from error
    method_page(method)


@app.command(sort_key=5)
def demo(
    *,
    out: options.DemoOut = Path("out/demo"),
    transformer: options.DemoTransformer = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
) -> None:
    """Quantize an embedded digit network to W3A3 with AdaDFQ: no download, about a minute."""
    with resumable(out):
        from dreamquant.jobs.quantize import quantize_demo

        result = quantize_demo(out, transformer=transformer, quiet=quiet, verbose=verbose)
    _present(result, out, as_json=json, quiet=quiet)


app.command(report, sort_key=6)
app.command(compare, sort_key=6)
app.command(sweep, sort_key=6)


@app.command(sort_key=7)
def doctor(*, json: options.Json = False) -> None:
    """Show versions, devices, and which optional packages are installed or how to get them."""
    from dreamquant.cli.tables import doctor_table
    from dreamquant.jobs.doctor import examine

    findings = examine()
    if json:
        _print_json(findings)
    else:
        doctor_table(findings)


def _named_network(name: str, weights: Path | None, expected: options.Expected) -> Network:
    shape = None if expected.input is None else reading.parse_shape(expected.input)
    mean = None if expected.mean is None else reading.parse_numbers(expected.mean, "--mean")
    std = None if expected.std is None else reading.parse_numbers(expected.std, "--std")
    from dreamquant.networks.load import load_network

    network = load_network(
        name,
        weights=weights,
        shape=shape,
        mean=mean,
        std=std,
        num_classes=expected.classes,
        task=expected.task,
        features=expected.features,
        bgr=expected.bgr,
    )
    for text in network.notes:
        note(text)
    return network


def _saved_student(
    folder: Path, weights: Path | None
) -> tuple[nn.Module, InputSpec, nn.Module | None, Any]:
    """The student in a result folder, its input, and its teacher and box function if available."""
    if not folder.is_dir():
        raise ResultError(
            f"{folder} is neither a result folder nor a network",
            where="dreamquant evaluate",
            remedy="give the --out folder of a finished run, or a network as "
            "`dreamquant quantize` takes it",
        )
    from dreamquant.results.reopen import open_result, reopen_teacher

    result = open_result(folder)
    teacher = reopen_teacher(result.manifest, weights)
    if teacher is None:
        note(
            "agreement is not measured, because the teacher's weights were not found: "
            "give --weights"
        )
    return result.model, result.input, teacher, result.boxes()


def _nothing_to_measure(data: str) -> DataError:
    return DataError(
        "nothing can be measured: the images have no labels, and there is no teacher to compare "
        "with",
        where=data,
        remedy="give labelled images, or a result and, by --weights, its teacher's weights",
    )


def _present(
    result: Result, out: Path, *, as_json: bool, quiet: bool, export: bool = False
) -> None:
    from dreamquant import distributed

    if distributed.rank() > 0:
        return
    exported = {"exported": deploy.exported(out)} if export and (as_json or quiet) else {}
    if as_json:
        _print_json({"out": str(out), **result.summary(), **exported})
    if as_json or quiet:
        return
    from dreamquant.cli.tables import result_table

    result_table(result, out)
    if export:
        deploy.export(out)


def _print_json(value: dict[str, Any]) -> None:
    print(json.dumps(value))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line.

    Errors that a user can cause exit with code 2, Ctrl-C and SIGTERM with 130.

    Args:
        arguments: the words after the program's name; by default those from the shell.
    """
    run(app, sys.argv[1:] if arguments is None else list(arguments))
