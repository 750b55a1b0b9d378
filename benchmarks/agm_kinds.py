"""Which of the three candidates for AGM's margin to take: AdaDFQ with each, and without.

    python benchmarks/agm_kinds.py

Finished runs are kept in ``docs/results/`` and not repeated. The formula of the paper is not
public; the default kind of ``GaussianMargin`` is the one that this table favours.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

from dreamquant.methods.adadfq import adadfq
from dreamquant.methods.agm import agm
from dreamquant.terms.margin import GaussianMargin, Kind
from grid import DATA, Grid, Point, cifar, protocol_lines, spread

TITLE = "AGM's margin: three candidates, ResNet-20, CIFAR-10, no data"
VARIANTS = {
    "no add-on": adadfq,
    "mixup alone": adadfq + replace(agm, name="mixup", generator_terms=[]),
    **{
        kind: adadfq + replace(agm, name=f"agm-{kind}", generator_terms=[GaussianMargin(kind)])
        for kind in get_args(Kind)
    },
}


def main() -> None:
    """Run what is missing, then write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=DATA, help="folder of weights and images")
    options = parser.parse_args()
    network, images = cifar(options.data, "cifar10_resnet20")
    grid = Grid("agm-kinds-cifar10", TITLE)
    for seed in range(3):
        for name, method in VARIANTS.items():
            grid.play(network, images, Point(name, "w3a3", seed, precision="bf16"), method)
            grid.write_page(_page(grid.runs))
    grid.write_page(_page(grid.runs))


def _page(runs: list[dict[str, Any]]) -> Iterable[str]:
    yield f"# {TITLE}"
    yield ""
    yield "| AdaDFQ, W3A3, with | seeds | top-1 %, last iteration | CPU s |"
    yield "|---|---|---|---|"
    for name in VARIANTS:
        its = [run for run in runs if run["method"] == name]
        if its:
            cpu = statistics.mean(run["cpu_seconds"] for run in its)
            yield f"| {name} | {len(its)} | {spread([run['top1'] for run in its])} | {cpu:.0f} |"
    yield ""
    yield from protocol_lines(runs)


if __name__ == "__main__":
    main()
