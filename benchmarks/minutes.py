"""Real networks to low bits in minutes: ``python benchmarks/minutes.py [--limit SECONDS]``.

Each cell is one run with a budget, put on record at once; cells on record are not run again.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from filelock import FileLock

from dreamquant import Network, load_network, quantize
from dreamquant.evaluation.data import open_images
from dreamquant.networks.pixels import denormalise
from dreamquant.results.files import read_json, write_json
from grid import DATA, ROOT, cifar, imagenet
from pages import RESULTS, write_page

PATH = RESULTS / "minutes.json"
TITLE = "Real networks in minutes"
BITS = ("w8a8", "w4a8", "w4a4")
METHODS = ("squant", "nagel", "auto")


class Case(NamedTuple):
    """A network, its images, and the budget of its runs."""

    load: Callable[[], tuple[Network, Path]]
    images: int
    budget: str


def _lite0() -> tuple[Network, Path]:
    zoo = DATA / "zoo"
    network = load_network(
        f"{zoo}/imagenet_efficientnet_lite0.py:make",
        weights=zoo / "imagenet_efficientnet_lite0.safetensors",
        shape=(3, 224, 224),
        mean=(127 / 255,) * 3,
        std=(128 / 255,) * 3,
    )
    cropped = replace(network, input=replace(network.input, resize=256))
    return cropped, DATA / "imagenet" / "samples1000_256.tar"


CASES = {
    "MobileNetV1 0.75": Case(lambda: imagenet(DATA), 300, "15min"),
    "EfficientNet-Lite0": Case(_lite0, 300, "15min"),
    "ResNet-20": Case(lambda: cifar(DATA, "cifar10_resnet20"), 2000, "5min"),
}


def main() -> None:
    """Run the cells that are missing, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--limit", type=float, default=3600.0, help="seconds to begin cells in")
    limit = time.monotonic() + parser.parse_args().limit
    for name, bits, method in missing():
        if time.monotonic() > limit:
            break
        add(measure(name, bits, method))
    write_page(PATH, page(runs()))


def runs() -> list[dict[str, Any]]:
    """All on record."""
    return read_json(PATH)["runs"] if PATH.exists() else []


def missing() -> Iterator[tuple[str, str, str]]:
    """Cells that are not on record, ours first."""
    done = {(run["network"], run["bits"], run["method"]) for run in runs()}
    cells = [(n, b, m) for m in reversed(METHODS) for b in BITS for n in CASES]
    return (cell for cell in cells if cell not in done)


def add(run: dict[str, Any]) -> None:
    """Put a run on record."""
    with FileLock(PATH.with_name(f".{PATH.name}.lock")):
        write_json(PATH, {"title": TITLE, "runs": [*runs(), run]})


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


def page(cells: Sequence[dict[str, Any]]) -> Iterator[str]:
    """The page's lines."""
    yield from (f"# {TITLE}", "")
    yield "| network | bits | method | teacher | student | images | budget | s | CPU s |"
    yield "|---|---|---|--:|--:|--:|---|--:|--:|"
    for run in sorted(cells, key=itemgetter("network", "bits", "method")):
        teacher, student = (run["accuracy"][who]["top1"] for who in ("teacher", "student"))
        yield (
            f"| {run['network']} | {run['bits'].upper()} | {run['method']} | {teacher:.2f} "
            f"| {student:.2f} | {run['images']} | {run['budget']} | {run['seconds']:.0f} "
            f"| {run['cpu_seconds']:.0f} |"
        )
    yield from ("", "Top-1 in percent of the first images; seconds from the first line to the")
    yield "result, measuring included. Protocols, stages, processor and load are in the record."


def measure(name: str, bits: str, method: str) -> dict[str, Any]:
    """One run, on the first images."""
    case = CASES[name]
    network, path = case.load()
    images = first(path, case.images, network)
    started, cpu = time.monotonic(), time.process_time()
    result = quantize(network, bits, method, data=images, budget=case.budget, device="cpu")
    manifest = result.manifest
    return {
        "network": name,
        "bits": bits,
        "method": method,
        "budget": case.budget,
        "images": case.images,
        "seconds": time.monotonic() - started,
        "cpu_seconds": time.process_time() - cpu,
        "accuracy": manifest["accuracy"],
        "agreement": manifest["agreement"],
        "phases": manifest["phases"],
        "protocol": manifest["protocol"],
        "hardware": manifest["hardware"],
        "load": os.getloadavg()[0],
        "threads": torch.get_num_threads(),
    }


if __name__ == "__main__":
    main()
