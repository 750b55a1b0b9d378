"""Grids of runs that are kept: each run is the command line's own job, done once and recorded."""

from __future__ import annotations

import os
import shutil
import statistics
from collections.abc import Iterable
from dataclasses import dataclass, replace
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock

from dreamquant import Method, Network, load_network, open_result, quantize
from dreamquant.evaluation.data import open_images
from dreamquant.networks.pixels import denormalise
from dreamquant.results.files import read_json, write_json
from pages import RESULTS, cpu_seconds, listed, write_page
from presets import length

ROOT = Path(__file__).resolve().parents[1]
_PRECISIONS = {"32": "float32", "bf16": "bfloat16"}
DATA = Path(os.environ.get("DREAMQUANT_DATA", ROOT / "../shared/data"))
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Point:
    """One run of a grid."""

    method: str
    bits: str
    seed: int
    iterations: int | None = None
    precision: str = "32"
    preset: str = "quick"
    compiled: bool = False
    norms: str | None = None


class Grid:
    """The runs of one benchmark, in ``docs/results/NAME.json``.

    Args:
        name: of the file.
        title: of the page.
    """

    def __init__(self, name: str, title: str) -> None:
        self.path, self.title = RESULTS / f"{name}.json", title

    @property
    def runs(self) -> list[dict[str, Any]]:
        """All on record, read anew: other processes may be at work on the same grid."""
        if not self.path.exists():
            return []
        runs: list[dict[str, Any]] = read_json(self.path)["runs"]
        return runs

    def has(self, point: Point) -> bool:
        """Whether a run is on record."""
        place = (point.bits, point.method, point.seed)
        key = (*place, point.preset, point.precision, point.compiled, point.norms)
        return any((*_place(run), *_choices(run)) == key for run in self.runs)

    def add(self, run: dict[str, Any]) -> None:
        """Record a run at once, so that no finished run is lost.

        Reading the record and writing the longer one is one step for all processes: of two that add
        at once, the second waits and finds the run of the first.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(self.path.with_name(f".{self.path.name}.lock")):
            runs = sorted([*self.runs, run], key=_place)
            write_json(self.path, {"title": self.title, "runs": runs})

    def play(
        self, network: Network, images: Path, point: Point, method: Method | None = None
    ) -> None:
        """Run a point that is not on record, or continue one that was stopped.

        Args:
            network: the teacher.
            images: to measure on.
            point: of the grid.
            method: the method, if it is not the one of the point's name.
        """
        if self.has(point):
            return
        name = "-".join(str(value) for value in vars(point).values())
        folder = ROOT / "out" / self.path.stem / name
        self.add(measure(network, images, point, method or point.method, folder))
        shutil.rmtree(folder)

    def write_page(self, lines: Iterable[str]) -> None:
        """Write the page beside the runs."""
        write_page(self.path, lines)


def _place(run: dict[str, Any]) -> tuple[str, str, int]:
    return run["bits"], run["method"], run["seed"]


def _choices(run: dict[str, Any]) -> tuple[str, str, bool, str | None]:
    """Preset, precision, whether compiled, batch norms; runs of before a choice do not tell."""
    precision: str = run["protocol"]["training_precision"]
    return run.get("preset", "quick"), precision, run.get("compiled", False), run.get("norms")


def cifar(data: Path, factory: str) -> tuple[Network, Path]:
    """A network of ``networks.py`` with its real weights, and its lossless test images."""
    network = load_network(
        f"{Path(__file__).with_name('networks.py')}:{factory}",
        weights=data / "weights" / f"{factory}.safetensors",
        shape=(3, 32, 32),
        mean=MEAN,
        std=STD,
    )
    tests = {"cifar10": "test_lossless.npz", "cifar100": "test10k_lossless.npz"}
    kind = factory.split("_")[0]
    return network, data / kind / tests[kind]


def imagenet(data: Path) -> tuple[Network, Path]:
    """MobileNetV1 0.75, and a thousand images of ImageNet, whose centres it sees."""
    network = load_network(
        f"{Path(__file__).with_name('networks.py')}:mobilenet_v1_075",
        weights=data / "weights" / "imagenet_mobilenetv1_x075.safetensors",
        shape=(3, 224, 224),
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
    )
    cropped = replace(network, input=replace(network.input, resize=256))
    return cropped, data / "imagenet" / "samples1000_256.tar"


def first(path: Path, count: int, network: Network) -> Path:
    """The first images of a data set, as a file of their own."""
    side = network.input.shape[-1]
    kept = ROOT / "out" / "minutes" / f"{path.stem}-{side}-{count}.npz"
    if not kept.exists():
        few = open_images(path, network.input).first(count)
        pixels = torch.cat([denormalise(x, network.input) for x in few.batches(50)]) * 255
        kept.parent.mkdir(parents=True, exist_ok=True)
        images = pixels.round().byte().permute(0, 2, 3, 1).numpy()
        np.savez(kept, images=images, labels=np.asarray(few.labels))
    return kept


def measure(
    network: Network, images: Path, point: Point, method: str | Method, folder: Path
) -> dict[str, Any]:
    """Run a point of a grid in a folder: its accuracies, times and protocol."""
    before = cpu_seconds()
    quantize(
        network,
        point.bits,
        method,
        preset=point.preset,
        iterations=point.iterations,
        precision=point.precision,
        compile=point.compiled,
        batch_norm=point.norms,
        seed=point.seed,
        data=images,
        out=folder,
        resume=True,
    )
    manifest = open_result(folder).manifest
    accuracy, timings = manifest["accuracy"], manifest["timings"]
    trained = timings["training_cpu_seconds"]
    return {
        "method": point.method,
        "preset": point.preset,
        "compiled": point.compiled,
        "norms": point.norms,
        "bits": point.bits,
        "seed": point.seed,
        "teacher_top1": accuracy["teacher"]["top1"],
        "ranges_only_top1": accuracy["ranges_only"]["top1"],
        "top1": accuracy["student"]["top1"],
        "ci95": accuracy["student"]["ci95"],
        "n": accuracy["student"]["n"],
        "on_the_way": manifest["history"]["accuracy"],
        "agreement": manifest["agreement"]["percent"],
        "training_seconds": timings["training_seconds"],
        "training_cpu_seconds": trained,
        "seconds": timings["seconds"],
        # Of a run that was stopped, at least what it trained in all.
        "cpu_seconds": max(cpu_seconds() - before, trained),
        "schedule": length(manifest["method"]),
        "protocol": manifest["protocol"],
        "versions": manifest["versions"],
        "hardware": manifest["hardware"],
    }


def spread(values: list[float]) -> str:
    """Mean, and standard deviation where there is one."""
    deviation = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.2f}{deviation}"


def protocol_lines(
    runs: list[dict[str, Any]],
    precision: str | None = None,
    images: str = "lossless test images",
) -> Iterable[str]:
    """What every figure of a page was measured under; ``precision`` where runs differ in it."""
    run = runs[0]
    protocol, hardware = run["protocol"], run["hardware"]
    quantizers, norms = (
        ", or ".join(dict.fromkeys(name(run["protocol"]) for run in runs))
        for name in (_quantizers, itemgetter("batch_norm"))
    )
    precision = precision or _PRECISIONS[protocol["training_precision"]]
    yield (
        f"Protocol: placement {protocol['placement']}; {quantizers}; all layers, "
        f"including first and last, with the given bits; batch norm {norms}; "
        f"{_lengths(runs)} in {precision}; the last iteration is reported; teacher sha256 "
        f"{protocol['teacher_sha256'][:12]}…; full precision "
        f"{run['teacher_top1']:.2f} % of {run['n']} {images}."
    )
    yield ""
    yield (
        f"Hardware: {hardware['cpu']}, {hardware['cpus']} cores. Versions: "
        f"{listed(run['versions'])}. The machine did other work at times: compare CPU seconds "
        "instead of wall seconds. Both are measured from the start to the saved result, including "
        "evaluation, unless a table says training."
    )


def _quantizers(protocol: dict[str, Any]) -> str:
    return f"weights {protocol['weights']}, activations {protocol['activations']}"


def _lengths(runs: list[dict[str, Any]]) -> str:
    """``1200 iterations of 16 images``, and of which methods where these differ in it."""
    methods: dict[str, list[str]] = {}
    for run in runs:
        schedule = run["schedule"]
        length = f"{schedule['iterations']} iterations of {schedule['batch']} images"
        known = methods.setdefault(length, [])
        if run["method"] not in known:
            known.append(run["method"])
    if len({tuple(names) for names in methods.values()}) == 1:
        return " or ".join(methods)
    return " and ".join(f"{length} ({', '.join(names)})" for length, names in methods.items())
