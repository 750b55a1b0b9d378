"""The command line: it parses, calls the Python interface, and prints.

Whatever is heavy is imported inside the command that needs it, so that ``--help`` is instant.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn

from cyclopts import App, Parameter

from dreamquant.errors import DreamQuantError, NetworkError

if TYPE_CHECKING:
    from dreamquant.networks.load import Network
    from dreamquant.results.result import Result

app = App(
    name="dreamquant",
    help="Quantize a trained vision network without any of its training data.",
    help_format="plaintext",
)

Flag = Annotated[bool, Parameter(negative="")]


@app.command
def quantize(
    network: str,
    *,
    out: Path,
    bits: str = "w4a4",
    method: str = "adadfq",
    weights: Path | None = None,
    input: str | None = None,
    mean: str | None = None,
    std: str | None = None,
    classes: int | None = None,
    placement: Literal["relu-output", "layer-input"] = "relu-output",
    first_last: int | None = None,
    override: tuple[str, ...] = (),
    preset: str = "quick",
    budget: str | None = None,
    iterations: int | None = None,
    seed: int = 0,
    data: str | None = None,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    precision: Literal["32", "bf16"] = "32",
    resume: Flag = False,
    json: Flag = False,
) -> None:
    """Turn a trained network into a low-bit one on images dreamed up from itself.

    Parameters
    ----------
    network
        torchvision:NAME, timm:NAME, pytorchcv:NAME or path/to/file.py:factory.
    out
        Folder for the result; it must not hold one yet.
    bits
        Of weights and activations, w2a2 to w8a8.
    method
        As listed by `dreamquant methods`.
    weights
        safetensors or torch file for the network, instead of the zoo's pretrained weights.
    input
        Channels x height x width, such as 3x32x32, where the zoo does not know it.
    mean
        Per channel, in [0, 1] pixel units, separated by commas.
    std
        Likewise.
    classes
        Number of classes; checked against the network.
    placement
        relu-output quantizes what leaves each ReLU, as the papers do; layer-input what enters
        each layer, as integer hardware does.
    first_last
        Bits of the first and the last layer, where other than the rest.
    override
        PATTERN=w8a8 for layers whose name matches; may be repeated.
    preset
        quick, paper, or another that the method has.
    budget
        Fit the schedule into a duration on this machine, such as 5min.
    iterations
        Stretch or squeeze the schedule to so many.
    seed
        Of everything random.
    data
        Images to measure on, never to train on: a folder of class folders, an .npz, a .tar, or
        torchvision:CIFAR10:ROOT.
    device
        auto takes a GPU where there is one.
    precision
        Of training: 32, or bf16 where the hardware is faster at it.
    resume
        Go on with the unfinished run in --out, with the same options.
    json
        Print one JSON object on standard output.
    """
    from dreamquant import api

    result = api.quantize(
        _named_network(network, weights, input, mean, std, classes),
        bits,
        method,
        placement=placement,
        first_last=first_last,
        overrides=_pairs(override),
        preset=preset,
        budget=budget,
        iterations=iterations,
        seed=seed,
        data=data,
        device=device,
        precision=precision,
        out=out,
        resume=resume,
    )
    _present(result, out, as_json=json)


@app.command
def evaluate(
    target: str,
    *,
    data: str,
    weights: Path | None = None,
    input: str | None = None,
    mean: str | None = None,
    std: str | None = None,
    classes: int | None = None,
    limit: int | None = None,
    json: Flag = False,
) -> None:
    """Measure a result, or a network, on images: top-1, top-5, agreement with the teacher.

    Parameters
    ----------
    target
        A result folder, or a network as for `quantize`.
    data
        As for `quantize`; without labels, agreement is measured alone.
    weights
        For a network, as for `quantize`, like the next four. For a result: its teacher's
        weights, where they have moved.
    input
        Channels x height x width.
    mean
        Per channel, in [0, 1] pixel units.
    std
        Likewise.
    classes
        Number of classes.
    limit
        Use only the first so many images.
    json
        Print one JSON object on standard output.
    """
    from dreamquant.evaluation.data import open_images
    from dreamquant.evaluation.metrics import evaluate as measure

    if Path(target).is_dir():
        result = _result_with_teacher(Path(target), weights)
        evaluation = result.evaluate(data, limit=limit)
    else:
        net = _named_network(target, weights, input, mean, std, classes)
        evaluation = measure(net.module, open_images(data, net.input, limit=limit))
    if json:
        _print_json(evaluation.as_json())
        return
    from dreamquant.printing import evaluation_table

    evaluation_table(evaluation, target)


@app.command
def methods(name: str | None = None, /) -> None:
    """List the methods, or show one with its terms, weights, presets and provenance.

    Parameters
    ----------
    name
        Of one method.
    """
    from dreamquant.methods import METHODS, find_method
    from dreamquant.printing import method_page, methods_table

    if name is None:
        methods_table(METHODS.values())
    else:
        method_page(find_method(name))


@app.command
def demo(*, out: Path = Path("out/demo"), json: Flag = False) -> None:
    """Quantize the embedded digit network to W3A3 with AdaDFQ; no download, about a minute.

    Parameters
    ----------
    out
        Folder for the result; an earlier demo in it is replaced.
    json
        Print one JSON object on standard output.
    """
    from dreamquant.api import quantize_demo

    result = quantize_demo(out)
    _present(result, out, as_json=json)


@app.command
def doctor(*, json: Flag = False) -> None:
    """Show versions, devices, and which optional parts are present or how to get them.

    Parameters
    ----------
    json
        Print one JSON object on standard output.
    """
    from dreamquant.doctor import examine
    from dreamquant.printing import doctor_table

    findings = examine()
    if json:
        _print_json(findings)
    else:
        doctor_table(findings)


def _named_network(
    name: str,
    weights: Path | None,
    input: str | None,
    mean: str | None,
    std: str | None,
    classes: int | None,
) -> Network:
    from dreamquant.networks.load import load_network

    shape = None if input is None else _shape(input)
    return load_network(
        name,
        weights=weights,
        shape=shape,
        mean=None if mean is None else _numbers(mean, "--mean"),
        std=None if std is None else _numbers(std, "--std"),
        num_classes=classes,
    )


def _result_with_teacher(folder: Path, weights: Path | None) -> Result:
    """The result, with the teacher it came from where that is still at hand."""
    from dreamquant.results.result import open_result, reopen_teacher

    result = open_result(folder)
    result.teacher = reopen_teacher(result.manifest, weights)
    return result


def _shape(text: str) -> tuple[int, int, int]:
    parts = text.lower().split("x")
    if len(parts) != 3 or not all(part.isdecimal() for part in parts):
        raise NetworkError(
            f"{text!r} is no input shape", where="--input", remedy="give CxHxW, as 3x32x32"
        )
    channels, height, width = map(int, parts)
    return channels, height, width


def _numbers(text: str, option: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise NetworkError(
            f"{text!r} is no list of numbers",
            where=option,
            remedy="separate them by commas, as 0.485,0.456,0.406",
        ) from error


def _pairs(overrides: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    pairs = [override.partition("=") for override in overrides]
    return tuple((pattern, bits) for pattern, _, bits in pairs)


def _present(result: Result, out: Path, *, as_json: bool) -> None:
    if as_json:
        _print_json({"out": str(out), **result.summary()})
        return
    from dreamquant.printing import result_table

    result_table(result, out)


def _print_json(value: dict[str, Any]) -> None:
    print(json.dumps(value))


def _fail(error: DreamQuantError) -> NoReturn:
    print(f"error: {error}", file=sys.stderr)
    raise SystemExit(2) from error


def main() -> None:
    """Run the command line; errors a user can cause end with exit code 2."""
    try:
        app(exit_on_error=True)
    except DreamQuantError as error:
        _fail(error)
    except KeyboardInterrupt:
        _stopped()


def _stopped() -> NoReturn:
    arguments = " ".join(sys.argv[1:])
    print("\nstopped.", file=sys.stderr)
    if "quantize" in sys.argv and "--out" in arguments:
        resume = "" if "--resume" in sys.argv else " --resume"
        print(f"go on with: dreamquant {arguments}{resume}", file=sys.stderr)
    raise SystemExit(130)
