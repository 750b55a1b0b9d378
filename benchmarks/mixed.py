"""Bits chosen layer by layer against the same bits everywhere, at equal size.

    OMP_NUM_THREADS=1 python benchmarks/mixed.py [--limit SECONDS]

``--bits auto`` may take as many bytes as the network with uniform bits of the same seed. A cell is
a network, its uniform bits, how bits are given, and a seed; cells on record are not run again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any

import torch

from cells import measured
from grid import first, spread
from kit import CASES
from pages import RESULTS, grow, runs_on, write_page

PATH = RESULTS / "mixed.json"
TITLE = "Bits chosen layer by layer, at the size of uniform bits"
UNIFORM, CHOSEN = "uniform", "chosen"
NETWORKS = {  # budget, images measured on
    "EfficientNet-Lite0": ("4min", 300),
    "ResNet-20 CIFAR-10": ("1min", 2000),
    "MobileNetV1 0.75": ("4min", 300),
}
BITS = ("w4a8", "w3a8")
SEEDS = ("0", "1", "2")
Place = tuple[str, str, str, str]


def main() -> None:
    """Run the cells that are missing."""
    torch.set_num_threads(1)
    grow(PATH, TITLE, missing, measure, lambda: write_page(PATH, page(runs_on(PATH))))


def place(run: dict[str, Any]) -> Place:
    """What tells a cell from others."""
    return run["network"], run["uniform"], run["seed"], run["given"]


def missing() -> Iterator[Place]:
    """Cells that are not on record; the uniform one of a seed comes before the chosen one."""
    done = {place(run) for run in runs_on(PATH)}
    every = ((n, b, s, g) for s, n, b, g in product(SEEDS, NETWORKS, BITS, (UNIFORM, CHOSEN)))
    return (cell for cell in every if cell not in done)


def measure(name: str, uniform: str, seed: str, given: str) -> dict[str, Any]:
    """One cell."""
    network, path = CASES[name].load()
    budget, count = NETWORKS[name]
    options = {"data": first(path, count, network), "budget": budget, "seed": int(seed)}
    bits = uniform
    if given == CHOSEN:
        (other,) = (run for run in runs_on(PATH) if place(run) == (name, uniform, seed, UNIFORM))
        bits, options["size"] = "auto", f"{other['bytes']}B"
    run = measured(network, bits, "auto", **options)
    return {"network": name, "uniform": uniform, "seed": seed, "given": given, **run}


def page(runs: Sequence[dict[str, Any]]) -> Iterator[str]:
    """The page's lines."""
    yield from (f"# {TITLE}", "")
    yield "| network | size of | KiB | teacher | uniform bits | bits chosen | seeds |"
    yield "|---|---|--:|--:|--:|--:|--:|"
    for name, uniform in dict.fromkeys((run["network"], run["uniform"]) for run in runs):
        here = [run for run in runs if (run["network"], run["uniform"]) == (name, uniform)]
        told = [[run for run in here if run["given"] == given] for given in (UNIFORM, CHOSEN)]
        teacher = here[0]["accuracy"]["teacher"]["top1"]
        yield (
            f"| {name} | {uniform.upper()} | {here[0]['bytes'] / 1024:.0f} | {teacher:.2f} "
            f"| {' | '.join(map(_top1, told))} | {len(told[1])} |"
        )
    yield ""
    yield (
        "Top-1 in percent by the default method, of the first 300 images of 224 pixels and more "
        "(4 minutes each) or 2,000 of 32 (1 minute). Activations have 8 bits."
    )
    if runs:
        last = runs[-1]
        yield (
            f"\n{len(runs)} of {len(SEEDS) * len(NETWORKS) * len(BITS) * 2} cells so far, on "
            f"{last['hardware']['cpu']}, {last['threads']} thread; loads of the machine are in "
            "the record. Written by `benchmarks/mixed.py`."
        )


def _top1(runs: Sequence[dict[str, Any]]) -> str:
    found = [run["accuracy"]["student"]["top1"] for run in runs]
    if not found:
        return "–"
    return spread(found) if len(found) > 1 else f"{found[0]:.2f}"


if __name__ == "__main__":
    main()
