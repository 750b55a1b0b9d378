"""Every network of the kit, the whole way: coverage, accuracy, exported files, seconds.

    python benchmarks/kit.py [--limit SECONDS]

A cell is a network at some bits. It is put on record at once; cells on record are not run again.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from dreamquant import Method, Network, Result, load_network, quantize
from dreamquant.errors import DreamQuantError
from dreamquant.evaluation.data import EvaluationSet, open_images
from dreamquant.evaluation.evaluation import Evaluation
from dreamquant.evaluation.metrics import evaluate
from dreamquant.export.job import DEFAULT_TARGETS, export_result
from dreamquant.export.runtime import open_onnx
from dreamquant.methods.method import Paper, Preset
from dreamquant.networks.origins import named_boxes
from dreamquant.quantization.scheme import SCHEMES
from dreamquant.recovery.calibrate import Calibrate
from dreamquant.results.describe import describe_machine
from dreamquant.results.floats import in_float
from dreamquant.synthesis.drawn import Procedural
from grid import DATA, cifar, first, imagenet
from kit_page import page
from pages import RESULTS, cpu_seconds, grow, runs_on, write_page

PATH = RESULTS / "networks.json"
ZOO = DATA / "zoo"
BITS = ("w8a8", "w4a8")
SAMPLES = DATA / "imagenet" / "samples1000_256.tar"
COCO = ZOO / "data_coco128_val.tar"
DETECTOR = ZOO / "coco_fastestdet.py"

ROUNDED = Method(
    name="rounded",
    summary="weights to the nearest code, ranges on procedural images, nothing recovered",
    paper=Paper("none", "here", "DreamQuant", confirmed="nothing", ours="all of it"),
    images=Procedural(size=64),
    recovery=(Calibrate(count=64, batch=32),),
    scheme=SCHEMES["integer"],
    presets={
        "quick": Preset(),
        "quick-imagenet": Preset(
            images={"size": 16}, recovery={"Calibrate": {"count": 16, "batch": 8}}
        ),
    },
)


@dataclass(frozen=True)
class Case:
    """A network of the kit, and what it is measured on.

    Attributes:
        load: gives the network and its images.
        images: the first so many; ``None`` for all of them.
        budget: of its recovery, on one core that other work may share.
    """

    load: Callable[[], tuple[Network, Path]]
    images: int | None
    budget: str


def _zoo(name: str, data: Path, **options: Any) -> tuple[Network, Path]:
    weights = ZOO / f"{name}.safetensors"
    return load_network(f"{ZOO / name}.py:make", weights=weights, **options), data


def _cropped(name: str) -> tuple[Network, Path]:
    network, data = _zoo(name, SAMPLES)
    return replace(network, input=replace(network.input, resize=256)), data


def _folded_detector() -> tuple[Network, Path]:
    name = str(ZOO / "coco_fastestdet_folded.onnx")
    network = load_network(name, mean=(0.0,) * 3, std=(1.0,) * 3, bgr=True)
    return replace(network, boxes=named_boxes(f"{DETECTOR}:boxes")), COCO


_CIFAR10 = DATA / "cifar10" / "test_lossless.npz"
CASES = {
    "ResNet-20 CIFAR-10": Case(lambda: cifar(DATA, "cifar10_resnet20"), 2000, "1min"),
    "ResNet-20 CIFAR-100": Case(lambda: cifar(DATA, "cifar100_resnet20"), 2000, "1min"),
    "ResNet-56 CIFAR-10": Case(lambda: cifar(DATA, "cifar10_resnet56"), 1000, "2min"),
    "ResNet-8": Case(lambda: _zoo("cifar10_mlperf_resnet8", _CIFAR10), 2000, "1min"),
    "VGG-6 SiLU": Case(lambda: _zoo("cifar10_vgg6_silu", _CIFAR10), 2000, "1min"),
    "DS-CNN": Case(
        lambda: _zoo("kws_mlperf_dscnn", ZOO / "data_kws_eembc1000_mfcc.npz"), None, "1min"
    ),
    "KWT-1": Case(
        lambda: _zoo("kws_kwt1", ZOO / "data_kws_speechcommands_mfcc98x40_1200.npz"), None, "2min"
    ),
    "FastestDet": Case(lambda: _zoo("coco_fastestdet", COCO, bgr=True), None, "6min"),
    "FastestDet, folded ONNX": Case(_folded_detector, None, "6min"),
    "ESPNetv2": Case(lambda: _zoo("voc_espnetv2_seg_s10", COCO), None, "9min"),
    "SqueezeNet 1.1": Case(lambda: _cropped("imagenet_squeezenet11_nobn"), 200, "9min"),
    "MobileNetV1 0.75": Case(lambda: imagenet(DATA), 200, "9min"),
    "EfficientNet-Lite0": Case(lambda: _cropped("imagenet_efficientnet_lite0"), 200, "9min"),
}


def recover(network: Network, bits: str, budget: str, data: Path, out: Path) -> Result:
    """The default method within a budget: at 8 bits it ends early."""
    given: dict[str, Any] = {"data": data, "device": "cpu", "precision": "32", "out": out}
    return quantize(network, bits, budget=budget, quiet=True, **given)


def measure(name: str, bits: str) -> dict[str, Any]:
    """One cell: rounded, recovered, exported, and evaluated each time."""
    case = CASES[name]
    network, data = case.load()
    if case.images is not None:
        data = first(data, case.images, network)
    with tempfile.TemporaryDirectory() as folder:
        rounded = quantize(
            network, bits, ROUNDED, data=data, device="cpu", precision="32", quiet=True
        )
        started, cpu = time.monotonic(), cpu_seconds()
        result = recover(network, bits, case.budget, data, Path(folder) / "out")
        seconds, cpu = time.monotonic() - started, cpu_seconds() - cpu
        images = open_images(data, network.input, boxes=network.boxes)
        manifest = result.manifest
        return {
            "network": name,
            "bits": bits,
            "task": network.input.task,
            "method": manifest["method"]["name"],
            "budget": case.budget,
            "images": len(images),
            "float32": manifest["accuracy"]["teacher"],
            "rounded": rounded.manifest["accuracy"]["student"],
            "recovered": manifest["accuracy"]["student"],
            "agreement": manifest["agreement"],
            "coverage": coverage(manifest),
            "files": [exported(result, target, Path(folder), images) for target in DEFAULT_TARGETS],
            "seconds": seconds,
            "cpu_seconds": cpu,
            "phases": manifest["phases"],
            "notes": manifest["network"]["notes"],
            "protocol": manifest["protocol"],
            **describe_machine(torch.device("cpu")),
        }


def coverage(manifest: dict[str, Any]) -> dict[str, Any]:
    """What stays in float: percent of multiplications and of weights, and its names."""
    shares = in_float(manifest["coverage"])
    assert shares is not None
    return {
        "float_multiplications": shares.multiplications,
        "float_weights": shares.weights,
        "left_in_float": manifest["coverage"]["left_in_float"],
        "float_functions": manifest["coverage"]["float_functions"],
    }


def exported(result: Result, target: Any, folder: Path, images: EvaluationSet) -> dict[str, Any]:
    """A file of a result: what each runtime said, and what it scores in ONNX Runtime."""
    try:
        (file,) = export_result(result, (target,), to=folder / "out")
    except DreamQuantError as error:
        return {"target": target, "refused": str(error)}
    assert file.verification is not None
    found = evaluate(open_onnx(file.path), images)
    return {
        "target": target,
        "bytes": file.bytes,
        "runtimes": list(file.verification.agreement),
        "exact_on": list(file.verification.exact_on),
        "warnings": list(file.verification.warnings),
        "in_float": list(file.in_float),
        "score": score(found),
    }


def score(found: Evaluation) -> dict[str, Any] | None:
    """The score that matters most, by name."""
    return None if found.main is None else dict([found.main])


def runs() -> list[dict[str, Any]]:
    """All on record, network by network."""
    order = list(CASES)
    return sorted(
        runs_on(PATH), key=lambda run: (order.index(run["network"]), BITS.index(run["bits"]))
    )


def missing() -> Iterator[tuple[str, str]]:
    """Cells that are not on record."""
    done = {(run["network"], run["bits"]) for run in runs()}
    return (cell for cell in ((n, b) for n in CASES for b in BITS) if cell not in done)


def main() -> None:
    """Run the cells that are missing."""
    torch.set_num_threads(1)
    grow(
        PATH,
        "Networks",
        missing,
        measure,
        lambda: write_page(PATH, page(runs(), list(missing()))),
    )


if __name__ == "__main__":
    main()
