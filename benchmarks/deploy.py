"""What deployment costs: accuracy in each runtime, size and speed of exported files.

    python benchmarks/deploy.py                     # all that is not on record yet
    python benchmarks/deploy.py --only cifar10_resnet20 w8a8

Every student is trained without data for integer hardware (placement layer-input, joins of 8 bits)
and exported; its files are measured on the same images as the student itself.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import grid
from dreamquant import Network, export_result, load_network, open_result, quantize
from dreamquant.evaluation.data import open_images
from dreamquant.evaluation.metrics import evaluate
from dreamquant.export.benchmark import benchmark, float_twin
from dreamquant.export.runtime import RUNTIMES, open_onnx
from dreamquant.results.files import read_json, write_bytes, write_json

PATH = grid.RESULTS / "deploy.json"
BITS = ("w8a8", "w4a4")
# Iterations of the preset's schedule, squeezed: 8 bits hardly need any.
ITERATIONS = {"w8a8": 100, "w4a4": 1000}
RUNS = 100


def cifar(factory: str) -> tuple[Network, Path, str]:
    """A CIFAR-10 network, its images, and the preset to train its student by."""
    return *grid.cifar(grid.DATA, factory), "quick"


def imagenet() -> tuple[Network, Path, str]:
    """MobileNetV1 0.75, a thousand images of ImageNet, and the preset."""
    network = load_network(
        f"{Path(__file__).with_name('networks.py')}:mobilenet_v1_075",
        weights=grid.DATA / "weights" / "imagenet_mobilenetv1_x075.safetensors",
        shape=(3, 224, 224),
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
    )
    return network, grid.DATA / "imagenet" / "samples1000_256.tar", "quick-imagenet"


NETWORKS = {
    "cifar10_resnet20": lambda: cifar("cifar10_resnet20"),
    "cifar10_resnet56": lambda: cifar("cifar10_resnet56"),
    "mobilenet_v1_075": imagenet,
}


def measure(name: str, bits: str, iterations: int, folder: Path) -> dict[str, Any]:
    """Train, export and measure one student."""
    network, images, preset = NETWORKS[name]()
    out = folder / "out"
    quantize(
        network,
        bits,
        placement="layer-input",
        joins=8,
        preset=preset,
        iterations=iterations,
        data=images,
        device="cpu",
        out=out,
    )
    files = export_result(out)
    manifest = open_result(out).manifest
    twin = len(float_twin(files[0].path.read_bytes()))
    return {
        "network": name,
        "bits": bits,
        "fp32_top1": manifest["accuracy"]["teacher"]["top1"],
        "student_top1": manifest["accuracy"]["student"]["top1"],
        "n": manifest["accuracy"]["student"]["n"],
        "fp32_bytes": twin,
        "files": {file.target: _measured(file, images, network, twin) for file in files},
        "protocol": manifest["protocol"],
        "iterations": iterations,
        "versions": manifest["versions"],
        "hardware": manifest["hardware"],
    }


def _measured(file: Any, images: Path, network: Network, twin: int) -> dict[str, Any]:
    opened = open_images(images, network.input)
    top1 = {
        runtime: evaluate(open_onnx(file.path, runtime=runtime), opened).top1
        for runtime in RUNTIMES
    }
    timed = {
        runtime: benchmark(file.path, runtime=runtime, threads=None, batch=1, runs=RUNS)
        for runtime in RUNTIMES
    }
    return {
        "bytes": file.bytes,
        "share_of_fp32": file.bytes / twin,
        "top1": top1,
        "speedup": {runtime: found.speedup for runtime, found in timed.items()},
        "p50_ms": {runtime: found.quantized.p50 for runtime, found in timed.items()},
        "threads": timed["onnxruntime"].threads,
        "verification": asdict(file.verification),
    }


def page(runs: list[dict[str, Any]]) -> Iterable[str]:
    """The page beside the runs."""
    yield "# Deployment: accuracy, size and speed of exported files"
    yield ""
    yield (
        "| network | bits | FP32 | student | file | ONNX Runtime | OpenVINO | KiB | of FP32 | "
        "faster in ONNX Runtime | faster in OpenVINO |"
    )
    yield "|---|---|--:|--:|---|--:|--:|--:|--:|--:|--:|"
    for run in runs:
        for target, file in run["files"].items():
            yield (
                f"| {run['network']} | {run['bits']} | {run['fp32_top1']:.2f} | "
                f"{run['student_top1']:.2f} | {target} | {file['top1']['onnxruntime']:.2f} | "
                f"{file['top1']['openvino']:.2f} | {file['bytes'] / 1024:.0f} | "
                f"{file['share_of_fp32']:.3f} | {file['speedup']['onnxruntime']:.2f} × | "
                f"{file['speedup']['openvino']:.2f} × |"
            )
    first = runs[0]
    images = ", ".join(sorted({f"{run['n']} images ({run['network']})" for run in runs}))
    yield ""
    yield (
        f"Top-1 in percent of the same images throughout: {images}. Students: AdaDFQ without data, "
        "placement layer-input, joins of 8 bits, all layers at the bits named, seed 0, the last of "
        + ", ".join(f"{run['iterations']} ({run['network']} {run['bits']})" for run in runs)
        + " iterations. Speed: the same network in float32 in the same runtime, batch 1, "
        f"{RUNS} runs of each in turns, {first['files']['int8box']['threads']} threads; other work "
        f"ran on the machine. {first['hardware']['cpu']}."
    )


def main() -> None:
    """Measure what is not on record, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs=2, metavar=("NETWORK", "BITS"))
    parser.add_argument("--iterations", type=int)
    asked = parser.parse_args()
    points = [(name, bits) for name in NETWORKS for bits in BITS]
    for name, bits in [tuple(asked.only)] if asked.only else points:
        runs = read_json(PATH)["runs"] if PATH.exists() else []
        if any((run["network"], run["bits"]) == (name, bits) for run in runs):
            continue
        with tempfile.TemporaryDirectory() as folder:
            iterations = asked.iterations or ITERATIONS[bits]
            run = measure(name, bits, iterations, Path(folder))
        runs = sorted([*runs, run], key=lambda run: (run["network"], run["bits"]))
        write_json(PATH, {"title": "Deployment", "runs": runs})
        write_bytes(PATH.with_suffix(".md"), "\n".join([*page(runs), ""]).encode())


if __name__ == "__main__":
    main()
