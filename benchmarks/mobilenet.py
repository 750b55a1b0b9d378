"""MobileNetV1 at 224 pixels, few bits, few iterations: batch norms kept and matched.

    python benchmarks/mobilenet.py [--data DIR] [--seeds 0 1 2] [--bits w4a4]

40 batches of 8 images: minutes on two cores. It measures what so short a run reaches.
Finished runs are kept in ``docs/results/`` and not repeated, so the script may be stopped and
started again at any time, and several may share the work.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

from dreamquant.methods.adadfq import adadfq
from dreamquant.methods.quick import QUICK_IMAGENET
from grid import DATA, Grid, Point, imagenet, protocol_lines, spread
from presets import on_batches

TITLE = "MobileNetV1 0.75, ImageNet, no data, 40 batches of 8 images"
BITS, NORMS = ("w8a8", "w6a6", "w4a4"), ("kept", "matched")
_FEW = on_batches(QUICK_IMAGENET, 8)
METHOD = replace(adadfq, presets={"quick": _FEW})


def main() -> None:
    """Run what is missing, then write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=DATA, help="folder of weights and images")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--bits", nargs="+", default=BITS, choices=BITS)
    options = parser.parse_args()
    network, images = imagenet(options.data)
    grid = Grid("mobilenet", TITLE)
    for seed, bits, norms in product(options.seeds, options.bits, NORMS):
        point = Point("adadfq", bits, seed, iterations=40, norms=norms)
        grid.play(network, images, point, METHOD)
        grid.write_page(_page(grid.runs))


def _page(runs: list[dict[str, Any]]) -> Iterable[str]:
    yield f"# {TITLE}"
    yield ""
    yield "| bits | batch norms | seeds | ranges only, % | top-1 %, last iteration | CPU s |"
    yield "|---|---|--:|--:|--:|--:|"
    for bits, norms in product(BITS, NORMS):
        its = [run for run in runs if (run["bits"], run["norms"]) == (bits, norms)]
        if its:
            yield _row(bits, norms, its)
    yield ""
    yield (
        "Ranges only: the student of the same runs at the end of the generator's warm-up, after 4 "
        "batches. Matched: batch norms are re-estimated before training, on 16 further batches."
    )
    yield ""
    yield from protocol_lines(runs, images="images, one of each class, 256 pixels, JPEG")


def _row(bits: str, norms: str, runs: list[dict[str, Any]]) -> str:
    before, after = (spread([run[of] for run in runs]) for of in ("ranges_only_top1", "top1"))
    seconds = sum(run["training_cpu_seconds"] for run in runs) / len(runs)
    return f"| {bits} | {norms} | {len(runs)} | {before} | {after} | {seconds:.0f} |"


if __name__ == "__main__":
    main()
