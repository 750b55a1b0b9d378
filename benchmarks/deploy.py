"""What deployment costs: accuracy in each runtime, size and speed of exported files.

    python benchmarks/deploy.py                     # all that is not on record yet
    python benchmarks/deploy.py --only cifar10_resnet20 w8a8

Students are trained without data for integer hardware (placement layer-input, joins of 8 bits) and
exported. Their files are measured on the same images as teacher and student. ResNet-18 has random
weights: only its size and speed are measured.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

import grid
from dreamquant import Network, export_result, open_result, quantize
from dreamquant.evaluation.data import EvaluationSet, open_images
from dreamquant.evaluation.metrics import evaluate
from dreamquant.export.benchmark import benchmark, float_twin
from dreamquant.export.job import ExportedFile, FileTarget
from dreamquant.export.noise import noise
from dreamquant.export.runtime import RUNTIMES, open_onnx
from dreamquant.methods.adadfq import adadfq
from dreamquant.methods.method import Method, Paper, Preset
from dreamquant.methods.quick import QUICK, QUICK_IMAGENET
from dreamquant.networks.load import wrap_module
from dreamquant.networks.spec import InputSpec
from dreamquant.quantization.convert import quantize_network
from dreamquant.quantization.scheme import Bits, Scheme
from dreamquant.results.describe import (
    describe_machine,
    describe_method,
    describe_network,
    describe_protocol,
)
from dreamquant.results.files import read_json, write_json
from dreamquant.results.result import Result
from dreamquant.results.upgrade import SCHEMA
from pages import RESULTS, write_page
from presets import on_batches

PATH = RESULTS / "deploy.json"
# At 8 bits the small file would be the fast one again.
TARGETS: dict[str, tuple[FileTarget, ...]] = {"w8a8": ("int8box",), "w4a4": ("int8box", "int4")}
RUNS, THREADS = 100, 2
UNTRAINED = Method(
    name="none",
    summary="nothing is trained: ranges cover noise",
    paper=Paper("none", "none", "none", confirmed="none", ours="all of it"),
    images=None,
    recovery=(),
)


@dataclass(frozen=True)
class Subject:
    """A network to deploy.

    Attributes:
        load: it, and its images; ``None`` for one that was never trained.
        preset: of AdaDFQ, to train its student by.
        batch: synthetic images an iteration.
        iterations: by bits; 8 bits hardly need any.
    """

    load: Callable[[], tuple[Network, Path | None]]
    preset: Preset
    batch: int
    iterations: dict[str, int]


def resnet18() -> tuple[Network, None]:
    """ResNet-18 for ImageNet as torchvision builds it, its weights random."""
    from torchvision.models import resnet18

    torch.manual_seed(0)
    return wrap_module(resnet18(), InputSpec((3, 224, 224), grid.MEAN, grid.STD, 1000)), None


SUBJECTS = {
    "resnet18": Subject(resnet18, QUICK_IMAGENET, 0, {"w8a8": 0, "w4a4": 0}),
    "cifar10_resnet20": Subject(
        lambda: grid.cifar(grid.DATA, "cifar10_resnet20"), QUICK, 32, {"w8a8": 40, "w4a4": 500}
    ),
    "mobilenet_v1_075": Subject(
        lambda: grid.imagenet(grid.DATA), QUICK_IMAGENET, 8, {"w8a8": 10, "w4a4": 40}
    ),
    "cifar10_resnet56": Subject(
        lambda: grid.cifar(grid.DATA, "cifar10_resnet56"), QUICK, 32, {"w8a8": 40, "w4a4": 120}
    ),
}


def recipe(subject: Subject, bits: str) -> Method:
    """AdaDFQ on batches of the subject's size; at 8 bits with smaller steps."""
    rate = subject.preset.recovery["Train"]["lr"]
    lr = rate / 10 if bits == "w8a8" else rate
    return replace(adadfq, presets={"quick": on_batches(subject.preset, subject.batch, lr=lr)})


def measure(name: str, bits: str, folder: Path) -> dict[str, Any]:
    """Train, export and measure one student."""
    subject = SUBJECTS[name]
    network, source = subject.load()
    iterations = subject.iterations[bits]
    if source is None:
        ranged(network, Scheme(Bits.parse(bits), "layer-input", joins=8)).save(folder)
    else:
        quantize(
            network,
            bits,
            recipe(subject, bits),
            placement="layer-input",
            elementwise=8,
            iterations=iterations,
            device="cpu",
            out=folder,
        )
    images = None if source is None else open_images(source, network.input)
    result = open_result(folder, network=network.module)
    files = export_result(result, TARGETS[bits], to=folder)
    twin = len(float_twin(files[0].path.read_bytes()))
    return {
        "network": name,
        "bits": bits,
        "images": None if images is None else len(images),
        "top1": {
            "float32": _top1(network.module, images),
            "pytorch": _top1(result.model, images),
        },
        "float32_bytes": twin,
        "files": {file.target: _measured(file, images, twin) for file in files},
        "iterations": iterations,
        "batch": subject.batch,
        "protocol": result.manifest["protocol"],
        "runtimes": {runtime: importlib.metadata.version(runtime) for runtime in RUNTIMES},
        **describe_machine(torch.device("cpu")),
    }


def ranged(network: Network, scheme: Scheme) -> Result:
    """An untrained student whose ranges cover noise."""
    images = noise(network.input)
    student, coverage = quantize_network(network.module, scheme, images[:2])
    student.observe(True)
    with torch.no_grad():
        student(images)
    student.fix()
    manifest = {
        "schema": SCHEMA,
        "phases": [],
        "network": describe_network(network),
        "method": describe_method(UNTRAINED, "none"),
        "protocol": describe_protocol(
            network, scheme, UNTRAINED, seed=0, precision="32", accumulate=1
        ),
        "scheme": asdict(scheme),
        "coverage": asdict(coverage),
    }
    return Result(student, manifest)


def _top1(model: torch.nn.Module, images: EvaluationSet | None) -> float | None:
    return None if images is None else evaluate(model, images).top1


def _measured(file: ExportedFile, images: EvaluationSet | None, twin: int) -> dict[str, Any]:
    top1 = {runtime: _top1(open_onnx(file.path, runtime=runtime), images) for runtime in RUNTIMES}
    timed = {
        runtime: benchmark(file.path, runtime=runtime, threads=THREADS, batch=1, runs=RUNS)
        for runtime in RUNTIMES
    }
    return {
        "bytes": file.bytes,
        "share_of_float32": file.bytes / twin,
        "top1": top1,
        "timed": {runtime: found.as_json() for runtime, found in timed.items()},
        "verification": None if file.verification is None else asdict(file.verification),
        "in_float": list(file.in_float),
    }


def page(runs: list[dict[str, Any]]) -> Iterable[str]:
    """The page beside the runs."""
    yield "# Deployment: accuracy, size and speed of exported files"
    yield ""
    yield "| network | bits | FP32 | PyTorch student | file | ONNX Runtime | OpenVINO | images |"
    yield "|---|---|--:|--:|---|--:|--:|--:|"
    for run, target, file in _files(runs):
        if run["images"] is not None:
            whole, found = run["top1"], file["top1"]
            yield (
                f"| {run['network']} | {run['bits']} | {whole['float32']:.2f} | "
                f"{whole['pytorch']:.2f} | {target} | {found['onnxruntime']:.2f} | "
                f"{found['openvino']:.2f} | {run['images']} |"
            )
    yield ""
    yield (
        "Top-1 in percent, always on the same images. Students: AdaDFQ without data, placement "
        "layer-input, element-wise inputs and image with 8 bits, all layers with the given bits, "
        "seed 0, after the last of "
        + "; ".join(
            f"{run['iterations']} × {run['batch']} images ({run['network']} {run['bits']})"
            for run in runs
            if run["images"] is not None
        )
        + "."
    )
    yield ""
    yield (
        "| network | bits | file | KiB | of FP32 | ONNX Runtime, ms | faster than FP32 | "
        "OpenVINO, ms | faster than FP32 |"
    )
    yield "|---|---|---|--:|--:|--:|--:|--:|--:|"
    for run, target, file in _files(runs):
        ort, openvino = (file["timed"][runtime] for runtime in RUNTIMES)
        yield (
            f"| {run['network']} | {run['bits']} | {target} | {file['bytes'] / 1024:.0f} | "
            f"{file['share_of_float32']:.3f} | {ort['quantized']['p50']:.2f} | "
            f"{ort['speedup']:.2f} × | {openvino['quantized']['p50']:.2f} | "
            f"{openvino['speedup']:.2f} × |"
        )
    machine, runtimes = runs[0]["hardware"], runs[0]["runtimes"]
    yield ""
    yield (
        "FP32 is the same network in the same runtime without quantizers, also as an ONNX file. "
        f"Medians of {RUNS} alternating runs of each, batch 1, {THREADS} threads. Other work ran "
        "on the machine, so compare only the ratios. ResNet-18 has random weights, which change "
        "neither size "
        f"nor speed. {machine['cpu']}, ONNX Runtime {runtimes['onnxruntime']}, OpenVINO "
        f"{runtimes['openvino']}."
    )


def _files(runs: list[dict[str, Any]]) -> list[tuple[dict[str, Any], str, dict[str, Any]]]:
    return [(run, target, file) for run in runs for target, file in run["files"].items()]


def main() -> None:
    """Measure what is not on record, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs=2, metavar=("NETWORK", "BITS"))
    asked = parser.parse_args()
    points = [(name, bits) for name in SUBJECTS for bits in TARGETS]
    runs = read_json(PATH)["runs"] if PATH.exists() else []
    for name, bits in [tuple(asked.only)] if asked.only else points:
        if any((run["network"], run["bits"]) == (name, bits) for run in runs):
            continue
        with tempfile.TemporaryDirectory() as folder:
            runs.append(measure(name, bits, Path(folder) / "out"))
        runs.sort(key=lambda run: (run["network"], run["bits"]))
        write_json(PATH, {"title": "Deployment", "runs": runs})
    write_page(PATH, page(runs))


if __name__ == "__main__":
    main()
