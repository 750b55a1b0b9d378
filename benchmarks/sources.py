"""Which images serve least squares: procedural kinds, noise, dreamed ones, real ones.

    python benchmarks/sources.py [--limit SECONDS]

A cell is a network, bits and a source of images; all else is equal. Cells on record are not run
again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cells import measured
from dreamquant import Method, Network
from dreamquant.evaluation.data import open_images
from dreamquant.methods import METHODS
from dreamquant.networks.pixels import denormalise
from dreamquant.recovery.closed_form import RoundByLeastSquares
from grid import ROOT, first
from kit import CASES
from pages import RESULTS, grow, runs_on, write_page

PATH = RESULTS / "sources.json"
TITLE = "Images for least squares"
NETWORKS = {  # bits, images measured on, images learned from
    "ResNet-20 CIFAR-10": (("w4a4", "w3a3"), 2000, 256),
    "MobileNetV1 0.75": (("w4a8", "w4a4"), 300, 64),
    "EfficientNet-Lite0": (("w4a8", "w4a4"), 300, 64),
}
SOURCES = ("noise", "pink-noise", "fractals", "dead-leaves", "dreamed", "real")


def method() -> Method:
    """Dreamed images and least squares, batch norms adapted to whatever images there are."""
    minutes = METHODS["minutes"]
    (solved,) = minutes.recovery
    assert isinstance(solved, RoundByLeastSquares)
    return replace(minutes, recovery=(replace(solved, adapt=True),))


def beyond(path: Path, measured: int, count: int, network: Network) -> Path:
    """Images that come after the measured ones, without labels, as a file of their own."""
    side = network.input.shape[-1]
    kept = ROOT / "out" / "sources" / f"{path.stem}-{side}-{measured}-{count}.npz"
    if not kept.exists():
        some = open_images(path, network.input).first(measured + count)
        pixels = torch.cat([denormalise(x, network.input) for x in some.batches(50)]) * 255
        kept.parent.mkdir(parents=True, exist_ok=True)
        images = pixels[measured:].round().byte().permute(0, 2, 3, 1).numpy()
        np.savez(kept, images=images)
    return kept


def missing() -> Iterator[tuple[str, str, str]]:
    """Cells that are not on record."""
    done = {(run["network"], run["bits"], run["source"]) for run in runs_on(PATH)}
    cells = [(n, bits, s) for n, (few, *_) in NETWORKS.items() for bits, s in product(few, SOURCES)]
    return (cell for cell in cells if cell not in done)


def measure(name: str, bits: str, source: str) -> dict[str, Any]:
    """One run, on the first images."""
    _, count, learned = NETWORKS[name]
    network, path = CASES[name].load()
    given = {"dreamed": None, "real": str(beyond(path, count, learned, network))}
    run = measured(
        network,
        bits,
        method(),
        images=given.get(source, source),
        data=first(path, count, network),
        scheme="integer",
        precision="32",
    )
    return {"network": name, "source": source, "images": count, "learned_from": learned, **run}


def page(runs: Sequence[dict[str, Any]]) -> Iterator[str]:
    """The page's lines."""
    yield from (f"# {TITLE}", "")
    yield f"| network | bits | float32 | {' | '.join(SOURCES)} |"
    yield f"|---|---|--:|{'--:|' * len(SOURCES)}"
    for name, (few, *_) in NETWORKS.items():
        for bits in few:
            its = {r["source"]: r for r in runs if (r["network"], r["bits"]) == (name, bits)}
            if its:
                yield _row(name, bits, its)
    yield ""
    yield "Top-1 in percent after one least-squares problem a layer, batch norms adapted to the"
    yield "images, scheme integer, all layers at these bits; seed 0. Real images come after the"
    yield "measured ones and are an upper bound: nobody without data has them."
    yield ""
    for name, (_, count, learned) in NETWORKS.items():
        yield f"- {name}: measured on {count} images, learned from {learned}."
    machines = {f"{r['hardware']['cpu']}, {r['threads']} thread" for r in runs}
    total = sum(len(few) for few, *_ in NETWORKS.values()) * len(SOURCES)
    yield from ("", f"{len(runs)} of {total} cells so far, on {'; '.join(sorted(machines))}.")


def _row(name: str, bits: str, runs: dict[str, dict[str, Any]]) -> str:
    teacher = next(iter(runs.values()))["accuracy"]["teacher"]["top1"]
    tops = (
        f"{runs[source]['accuracy']['student']['top1']:.1f}" if source in runs else "–"
        for source in SOURCES
    )
    return f"| {name} | {bits.upper()} | {teacher:.1f} | {' | '.join(tops)} |"


def main() -> None:
    """Run the cells that are missing."""
    torch.set_num_threads(1)
    grow(PATH, TITLE, missing, measure, lambda: write_page(PATH, page(runs_on(PATH))))


if __name__ == "__main__":
    main()
