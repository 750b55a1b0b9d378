"""Real networks to low bits in minutes: ``python benchmarks/minutes.py [--limit SECONDS]``.

Each cell is one run with a budget, put on record at once; cells on record are not run again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from operator import itemgetter
from typing import Any

from cells import measured
from dreamquant import Method
from dreamquant.report.field import Field, Group, Row
from dreamquant.report.field_chart import chart
from dreamquant.results.files import write_bytes
from grid import first
from kit import CASES, ROUNDED
from pages import RESULTS, grow, runs_on, write_page
from readme import write_first_table

PATH = RESULTS / "minutes.json"
TITLE = "Real networks in minutes"
BITS = ("w4a4", "w4a8", "w8a8")
METHODS: dict[str, str | Method] = {
    "auto": "auto",
    "rounding": ROUNDED,
    "squant": "squant",
    "nagel": "nagel",
    "zeroq": "zeroq",
    "genie": "genie",
    "adadfq": "adadfq",
}
LEARNING = ("auto", "zeroq", "genie", "adadfq")
# The same images as other tools are measured on.
IMAGES = {"MobileNetV1 0.75": 300, "EfficientNet-Lite0": 300, "SqueezeNet 1.1": 300}
BUDGETS = {
    "MobileNetV1 0.75": "4min",
    "EfficientNet-Lite0": "4min",
    "ResNet-20 CIFAR-10": "2min",
    "DS-CNN": "2min",
    "ResNet-8": "2min",
    "VGG-6 SiLU": "2min",
    "ResNet-20 CIFAR-100": "2min",
    "SqueezeNet 1.1": "4min",
}


def main() -> None:
    """Run the cells that are missing."""
    grow(PATH, TITLE, missing, measure, write)
    write_first_table()


def write() -> None:
    """Write the page and its picture."""
    runs = runs_on(PATH)
    write_page(PATH, page(runs))
    write_bytes(PATH.with_suffix(".svg"), picture(runs))


def missing() -> Iterator[tuple[str, str, str]]:
    """Cells that are not on record: the fewest bits first, and our method."""
    done = {(run["network"], run["bits"], run["method"]) for run in runs_on(PATH)}
    cells = [(n, b, m) for b in BITS for m in METHODS for n in BUDGETS]
    return (cell for cell in cells if cell not in done)


def page(cells: Sequence[dict[str, Any]]) -> Iterator[str]:
    """The page's lines."""
    yield from (f"# {TITLE}", "")
    yield "| network | bits | method | teacher | student | images | budget | s | CPU s |"
    yield "|---|---|---|--:|--:|--:|---|--:|--:|"
    for run in sorted(cells, key=itemgetter("network", "bits", "method")):
        teacher, student = (run["accuracy"][who]["top1"] for who in ("teacher", "student"))
        yield (
            f"| {run['network']} | {run['bits'].upper()} | {run['method']} | {teacher:.2f} "
            f"| {student:.2f} | {run['images']} | {run['budget'] or 'none'} | {run['seconds']:.0f} "
            f"| {run['cpu_seconds']:.0f} |"
        )
    yield from ("", "Top-1 in percent of the first images; seconds from the start to the result,")
    yield "including measurements; seed 0. Protocols, stages and load are in the record."
    machines = {f"{r['hardware']['cpu']}, {r['threads']} threads" for r in cells}
    total = len(BUDGETS) * len(BITS) * len(METHODS)
    yield from ("", f"{len(cells)} of {total} cells so far, on {'; '.join(sorted(machines))}.", "")
    yield "![Top-1 over seconds](minutes.svg)"


def picture(cells: Sequence[dict[str, Any]]) -> bytes:
    """Top-1 over seconds: an SVG with a panel for each network and bits."""
    groups = [
        Group(
            name,
            "top-1",
            here[0]["accuracy"]["teacher"]["top1"],
            {"bits": bits.upper()},
            tuple(
                Row(run["method"], (run["accuracy"]["student"]["top1"],), (), (run["seconds"],))
                for run in here
            ),
        )
        for name in BUDGETS
        for bits in BITS
        if (here := [run for run in cells if (run["network"], run["bits"]) == (name, bits)])
    ]
    return chart(Field(tuple(groups), {}))


def measure(name: str, bits: str, method: str) -> dict[str, Any]:
    """One run, on the first images."""
    case = CASES[name]
    network, path = case.load()
    count = IMAGES.get(name, case.images)
    images = path if count is None else first(path, count, network)
    # What takes seconds by itself has nothing that could be stretched to a budget.
    budget = BUDGETS[name] if method in LEARNING else None
    run = measured(network, bits, METHODS[method], data=images, budget=budget, scheme="integer")
    images_used = run["accuracy"]["student"]["n"]
    return {"network": name, "method": method, "budget": budget, "images": images_used, **run}


if __name__ == "__main__":
    main()
