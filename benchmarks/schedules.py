"""Which published iterations matter: the quick schedule beside the published one.

    python benchmarks/schedules.py [--iterations 1200] [--times 10] [--bits w3a3]

AdaDFQ on ResNet-20, CIFAR-10: the quick preset, and the published one squeezed to ``times`` as many
images, three seeds each. Finished runs are kept in ``docs/results/`` and not repeated, stopped ones
go on; two processes may share the work by bits.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterable
from itertools import product
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.pyplot as plt

from dreamquant.methods import METHODS
from dreamquant.methods.method import Method
from dreamquant.synthesis.generator import Generator
from grid import DATA, Grid, Point, cifar, protocol_lines, spread

matplotlib.use("Agg")

NAME, TITLE = "schedules-cifar10", "Schedules: AdaDFQ, ResNet-20, CIFAR-10, no data"
BITS = ("w3a3", "w4a4")
LABELS = {"quick": "quick", "paper": "published, squeezed"}


def main() -> None:
    """Run what is missing, then write page and picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=DATA, help="folder of weights and images")
    parser.add_argument("--iterations", type=int, default=1200, help="of the quick preset")
    parser.add_argument("--times", type=int, default=10, help="as many images for the published")
    parser.add_argument("--bits", nargs="+", default=BITS, choices=BITS, help="of runs to make")
    options = parser.parse_args()
    network, images = cifar(options.data, "cifar10_resnet20")
    grid = Grid(NAME, TITLE)
    for seed, bits, (preset, iterations) in product(
        range(3), options.bits, lengths(options.iterations, options.times).items()
    ):
        point = Point("adadfq", bits, seed, iterations, "bf16", preset)
        grid.play(network, images, point)
        _show(grid)
    _show(grid)


def _batch(method: Method) -> int:
    """Images of a batch."""
    assert isinstance(method.images, Generator)
    return method.images.batch


def lengths(quick: int, times: int) -> dict[str, int]:
    """Iterations of both presets, the published one over ``times`` as many images."""
    methods = {preset: METHODS["adadfq"].resolved(preset, (3, 32, 32)) for preset in LABELS}
    quick_batch, paper_batch = (_batch(methods[preset]) for preset in ("quick", "paper"))
    ratio = quick_batch / paper_batch
    return {"quick": quick, "paper": round(times * quick * ratio)}


def _show(grid: Grid) -> None:
    grid.write_page(_page(grid.runs))
    _draw(grid.runs, grid.path.with_suffix(".svg"))


def _page(runs: list[dict[str, Any]]) -> Iterable[str]:
    yield f"# {TITLE}"
    yield ""
    yield (
        "| bits | schedule | iterations × batch | seeds | top-1 %, last iteration | "
        "training, CPU s |"
    )
    yield "|---|---|---|--:|--:|--:|"
    for bits, preset in product(BITS, LABELS):
        its = _of(runs, bits, preset)
        if its:
            schedule = its[0]["schedule"]
            seconds = statistics.mean(run["training_cpu_seconds"] for run in its)
            yield (
                f"| {bits} | {LABELS[preset]} | {schedule['iterations']} × {schedule['batch']} | "
                f"{len(its)} | {spread([run['top1'] for run in its])} | {seconds:.0f} |"
            )
    yield ""
    yield f"![Accuracy over CPU seconds of training, both schedules]({NAME}.svg)"
    yield ""
    yield (
        "The quick schedule trains step sizes and weights with Adam and a cosine learning rate. "
        "The "
        "published one uses SGD and reduces the rate three times; activation ranges are frozen "
        "after "
        "the warm-up, and ranges of weights follow the weights."
    )
    yield ""
    yield (
        "Intermediate dots are top-1 of the first 1,000 test images, only for information: "
        "nothing is "
        "selected by them. The last dot is the result on all images."
    )
    yield ""
    yield from protocol_lines(runs)


def _of(runs: list[dict[str, Any]], bits: str, preset: str) -> list[dict[str, Any]]:
    return [run for run in runs if (run["bits"], run["preset"]) == (bits, preset)]


def _draw(runs: list[dict[str, Any]], path: Path) -> None:
    figure, axes = plt.subplots(1, len(BITS), figsize=(9, 3.6), layout="constrained")
    for axis, bits in zip(axes, BITS, strict=True):
        for preset, colour in zip(LABELS, ("tab:blue", "tab:orange"), strict=True):
            for i, run in enumerate(_of(runs, bits, preset)):
                seconds, accuracy = _curve(run)
                label = LABELS[preset] if i == 0 else None
                axis.plot(seconds, accuracy, ".-", color=colour, alpha=0.7, label=label)
        axis.set(title=bits.upper(), xlabel="CPU seconds of training", xscale="log")
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("top-1, %")
    axes[0].legend()
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def _curve(run: dict[str, Any]) -> tuple[list[float], list[float]]:
    """CPU seconds and top-1, on the way and at the end."""
    pace = run["training_cpu_seconds"] / run["schedule"]["iterations"]
    seconds = [entry["iteration"] * pace for entry in run["on_the_way"]]
    accuracy = [entry["top1"] for entry in run["on_the_way"]]
    return [*seconds, run["training_cpu_seconds"]], [*accuracy, run["top1"]]


if __name__ == "__main__":
    main()
