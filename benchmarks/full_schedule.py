"""The complete published schedule: AdaDFQ, ResNet-20, CIFAR-10, W3A3 and W4A4, three seeds.

    python benchmarks/full_schedule.py

80,000 iterations a run, in compiled graphs: minutes on a GPU, hours on two cores. Finished runs are
kept in ``docs/results/`` and not repeated, stopped ones go on.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterable
from itertools import product
from pathlib import Path
from typing import Any

from grid import DATA, Grid, Point, cifar, protocol_lines, spread

TITLE = "The whole published schedule: AdaDFQ, ResNet-20, CIFAR-10, no data"
BITS = ("w3a3", "w4a4")


def main() -> None:
    """Run what is missing, then write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=DATA, help="folder of weights and images")
    options = parser.parse_args()
    network, images = cifar(options.data, "cifar10_resnet20")
    grid = Grid("full-schedule-cifar10", TITLE)
    for seed, bits in product(range(3), BITS):
        point = Point("adadfq", bits, seed, precision="bf16", preset="paper", compiled=True)
        grid.play(network, images, point)
        grid.write_page(page(grid.runs))


def page(runs: list[dict[str, Any]]) -> Iterable[str]:
    """The page beside the runs."""
    yield f"# {TITLE}"
    yield ""
    yield "| bits | seeds | top-1 %, last iteration | training, s | ms an iteration | device |"
    yield "|---|--:|--:|--:|--:|---|"
    for bits in BITS:
        its = [run for run in runs if run["bits"] == bits]
        if its:
            yield _row(bits, its)
    yield ""
    yield from protocol_lines(runs)


def _row(bits: str, runs: list[dict[str, Any]]) -> str:
    seconds = statistics.mean(run["training_seconds"] for run in runs)
    milliseconds = 1e3 * seconds / runs[0]["schedule"]["iterations"]
    top1 = spread([run["top1"] for run in runs])
    device = runs[0]["hardware"]["device"]
    return f"| {bits} | {len(runs)} | {top1} | {seconds:.0f} | {milliseconds:.1f} | {device} |"


if __name__ == "__main__":
    main()
