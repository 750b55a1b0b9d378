"""What faster options cost in accuracy: AdaDFQ on ResNet-20, CIFAR-10, W3A3.

    python benchmarks/options.py [--seeds 0 1 2]

Runs in float32 are those of ``cifar10_resnet20.py``, in bfloat16 the quick ones of
``schedules.py``, which have to be on record. Finished runs are kept in ``docs/results/`` and not
repeated, stopped ones go on.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from grid import DATA, Grid, Point, cifar, protocol_lines, spread

TITLE = "Options for speed: AdaDFQ, ResNet-20, CIFAR-10, W3A3, no data"
PLAIN, HALF = "`--precision 32`", "`--precision bf16`"
COMPILED = "`--precision bf16 --compile`"


def main() -> None:
    """Run what is missing, then write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=DATA, help="folder of weights and images")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options = parser.parse_args()
    network, images = cifar(options.data, "cifar10_resnet20")
    grid = Grid("options-cifar10", TITLE)
    for seed in options.seeds:
        grid.play(network, images, Point("adadfq", "w3a3", seed, precision="bf16", compiled=True))
    found = {
        PLAIN: _others("cifar10-resnet20"),
        HALF: _others("schedules-cifar10"),
        COMPILED: grid.runs,
    }
    grid.write_page(_page(found))


def _others(name: str) -> list[dict[str, Any]]:
    """Runs of another grid that differ from ours in their options alone."""
    wanted = ("adadfq", "w3a3", "quick")
    runs = Grid(name, "").runs
    return [run for run in runs if (run["method"], run["bits"], run.get("preset")) == wanted]


def _page(found: dict[str, list[dict[str, Any]]]) -> Iterable[str]:
    yield f"# {TITLE}"
    yield ""
    yield "| options | seeds | top-1 %, last iteration | against float32 | training, CPU s |"
    yield "|---|--:|--:|--:|--:|"
    plain = statistics.mean(run["top1"] for run in found[PLAIN])
    for option, its in found.items():
        top1 = [run["top1"] for run in its]
        seconds = statistics.mean(run["training_cpu_seconds"] for run in its)
        difference = statistics.mean(top1) - plain
        yield f"| {option} | {len(its)} | {spread(top1)} | {difference:+.2f} | {seconds:.0f} |"
    yield ""
    yield "Seconds are those of the training process; a compiler that it starts is not counted."
    yield ""
    yield from protocol_lines(found[PLAIN], precision="the precision named")


if __name__ == "__main__":
    main()
