"""All methods and compositions side by side on real weights: quick presets, equally many images.

    python benchmarks/published_methods.py [--dataset cifar10|cifar100] [--seeds 0 1 2]

In bfloat16, which trains as well in two thirds of the time. Finished runs are kept in
``docs/results/`` and not repeated, so the script may be stopped and started again at any time, and
several may share the seeds; seeds come first, so that a partial table compares like with like.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterable
from itertools import product
from pathlib import Path
from typing import Any

from grid import DATA, Grid, Point, cifar, protocol_lines, spread

ALL = (
    "gdfq",
    "adasg",
    "adadfq",
    "ris",
    "agm",
    "acq",
    "gdfq+ris",
    "gdfq+agm",
    "adadfq+ris",
    "adadfq+agm",
    "adadfq+ris+agm",
)
SYSTEMS = ("gdfq", "adadfq", "ris", "agm", "acq")
# ris and agm on their own are gdfq+ris and gdfq+agm: measured once, shown under both names.
SAME = {"gdfq+ris": "ris", "gdfq+agm": "agm"}


def main() -> None:
    """Run what is missing, then write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", choices=("cifar10", "cifar100"), default="cifar10")
    parser.add_argument("--data", type=Path, default=DATA, help="folder of weights and images")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options = parser.parse_args()
    network, images = cifar(options.data, f"{options.dataset}_resnet20")
    methods = ALL if options.dataset == "cifar10" else SYSTEMS
    title = f"Published methods, ResNet-20, {options.dataset.upper()}, no data"
    grid = Grid(f"published-methods-{options.dataset}", title)
    for bits, seed in (*product(["w3a3"], options.seeds), ("w4a4", options.seeds[0])):
        for method in dict.fromkeys(SAME.get(name, name) for name in methods):
            grid.play(network, images, Point(method, bits, seed, precision="bf16"))
            grid.write_page(_page(title, grid.runs, methods))
    grid.write_page(_page(title, grid.runs, methods))


def _page(title: str, runs: list[dict[str, Any]], methods: Iterable[str]) -> Iterable[str]:
    yield f"# {title}"
    yield ""
    yield "| bits | method | seeds | ranges only, % | top-1 %, last iteration | CPU s |"
    yield "|---|---|--:|--:|--:|--:|"
    for bits, method in product(("w3a3", "w4a4"), methods):
        name = SAME.get(method, method)
        its = [run for run in runs if (run["bits"], run["method"]) == (bits, name)]
        if its:
            yield _row(bits, method, its)
    yield ""
    yield (
        "Ranges only: the student of the same runs at the end of the generator's warm-up. Its step "
        "sizes minimise the squared error on the images; nothing is trained."
    )
    yield ""
    yield from protocol_lines(runs)


def _row(bits: str, method: str, runs: list[dict[str, Any]]) -> str:
    before, after = (spread([run[key] for run in runs]) for key in ("ranges_only_top1", "top1"))
    cpu = statistics.mean(run["cpu_seconds"] for run in runs)
    return f"| {bits} | {method} | {len(runs)} | {before} | {after} | {cpu:.0f} |"


if __name__ == "__main__":
    main()
