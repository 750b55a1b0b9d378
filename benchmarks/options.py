"""What options for speed cost in accuracy: AdaDFQ on ResNet-20, CIFAR-10, W3A3.

    python benchmarks/options.py

Compiled runs are measured here; those in float32 and in bfloat16 are the quick ones of
``cifar10_resnet20.py`` and ``schedules.py``, which have to be on record. Finished runs are kept in
``docs/results/`` and not repeated.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from grid import DATA, Grid, Point, cifar, protocol_lines, spread

TITLE = "Options for speed: AdaDFQ, ResNet-20, CIFAR-10, W3A3, no data"
SEEDS = range(3)
PLAIN = "`--precision 32`"
OTHERS = {PLAIN: "cifar10-resnet20", "`--precision bf16`": "schedules-cifar10"}
COMPILED = "`--precision bf16 --compile`"


def main() -> None:
    """Run what is missing, then write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=DATA, help="folder of weights and images")
    options = parser.parse_args()
    network, images = cifar(options.data, "cifar10_resnet20")
    grid = Grid("options-cifar10", TITLE)
    for seed in SEEDS:
        point = Point("adadfq", "w3a3", seed, precision="bf16", compiled=True)
        grid.play(network, images, point)
    found = {option: _quick(Grid(name, "")) for option, name in OTHERS.items()}
    grid.write_page(_page({**found, COMPILED: grid.runs}))


def _quick(grid: Grid) -> list[dict[str, Any]]:
    runs = [run for run in grid.runs if (run["method"], run["bits"]) == ("adadfq", "w3a3")]
    return [run for run in runs if run["preset"] == "quick"]


def _page(found: dict[str, list[dict[str, Any]]]) -> Iterable[str]:
    yield f"# {TITLE}"
    yield ""
    yield "| options | seeds | top-1 %, last iteration | against float32 | training, CPU s |"
    yield "|---|--:|--:|--:|--:|"
    plain = statistics.mean(run["top1"] for run in found[PLAIN])
    for option, runs in found.items():
        top1 = [run["top1"] for run in runs]
        seconds = statistics.mean(run["training_cpu_seconds"] for run in runs)
        difference = statistics.mean(top1) - plain
        yield f"| {option} | {len(runs)} | {spread(top1)} | {difference:+.2f} | {seconds:.0f} |"
    yield ""
    yield "Seconds are those of the training process; a compiler that it starts is not counted."
    yield ""
    yield from protocol_lines(found[PLAIN], precision="the precision named")


if __name__ == "__main__":
    main()
