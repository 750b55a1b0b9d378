"""ResNet-20 on CIFAR-10 without data: ranges only, GDFQ and AdaDFQ at W4A4 and W3A3.

    python benchmarks/cifar10_resnet20.py [--data DIR] [--seeds 0 1 2] [--methods gdfq]

Finished runs are kept in ``docs/results/`` and not repeated, so the script may be stopped and
started again at any time, and several may share the work.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterable
from itertools import product
from pathlib import Path
from typing import Any

from grid import DATA, Grid, Point, cifar, protocol_lines, spread
from readme import put_into_readme

TITLE = "ResNet-20, CIFAR-10, no data"
METHODS, BITS = ("adadfq", "gdfq"), ("w3a3", "w4a4")
# AdaDFQ's Table 2 (GDFQ's W3A3 as re-run there): another checkpoint, 80,000 iterations, best epoch
# on the test set.
PUBLISHED = {
    ("gdfq", "w3a3"): 75.11,
    ("gdfq", "w4a4"): 90.11,
    ("adadfq", "w3a3"): 84.89,
    ("adadfq", "w4a4"): 92.31,
}


def main() -> None:
    """Run what is missing, then write the page and the README's table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=DATA, help="folder of weights and images")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--methods", nargs="+", default=METHODS, choices=METHODS)
    options = parser.parse_args()
    network, images = cifar(options.data, "cifar10_resnet20")
    grid = Grid("cifar10-resnet20", TITLE)
    for method, seed, bits in product(options.methods, options.seeds, BITS):
        point = Point(method, bits, seed)
        grid.play(network, images, point)
        grid.write_page(_page(grid.runs))
    grid.write_page(_page(grid.runs))
    table = [line for line in _page(grid.runs) if line.startswith("|")]
    put_into_readme("cifar10-resnet20", [f"{TITLE}.", "", *table])


def _page(runs: list[dict[str, Any]]) -> Iterable[str]:
    yield f"# {TITLE}"
    yield ""
    yield from _table(runs)
    yield ""
    yield from protocol_lines(runs)
    yield ""
    yield (
        "Ranges only: the student of the same runs at the end of the generator's warm-up. Its step "
        "sizes minimise the squared error on the images; nothing is trained. Runs used one thread "
        "of two cores."
    )
    yield ""
    yield (
        "Published values are for orientation and were not measured here: Table 2 of AdaDFQ (also "
        "for GDFQ at W3A3), another checkpoint (93.89 %), 80,000 iterations, the best epoch on the "
        "test set."
    )


def _table(runs: list[dict[str, Any]]) -> Iterable[str]:
    yield (
        "| bits | method | ranges only, % | after recovery, last iteration, % | each seed "
        "| wall s | CPU s | published % |"
    )
    yield "|---|---|---|---|---|---|---|---|"
    for bits, method in product(BITS, reversed(METHODS)):
        its = [run for run in runs if (run["bits"], run["method"]) == (bits, method)]
        if its:
            yield _row(bits, method, its)


def _row(bits: str, method: str, runs: list[dict[str, Any]]) -> str:
    tops = [run["top1"] for run in runs]
    cells = (
        bits,
        method,
        spread([run["ranges_only_top1"] for run in runs]),
        spread(tops),
        ", ".join(f"{top1:.2f}" for top1 in tops),
        f"{statistics.mean(run['seconds'] for run in runs):.0f}",
        f"{statistics.mean(run['cpu_seconds'] for run in runs):.0f}",
        f"{PUBLISHED[method, bits]}",
    )
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
