"""The page on the speed of one iteration, and the names of what ``step.py`` measures."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import product
from typing import Any, NamedTuple

from pages import listed

PRECISIONS = {"float32": "32", "bfloat16": "bf16"}


class Setting(NamedTuple):
    """What a user chooses of a run's speed."""

    precision: str
    compiled: bool


SETTINGS = {
    "float32": Setting("float32", compiled=False),
    "bfloat16": Setting("bfloat16", compiled=False),
    "float32 compiled": Setting("float32", compiled=True),
    "bfloat16 compiled": Setting("bfloat16", compiled=True),
}
METHODS_TIMED = ("adadfq", "gdfq")
NETWORKS_TIMED = ("resnet20", "resnet18", "mobilenet_v2")
PHASES = ("synthesis", "generator", "student", "update")


def rows(found: dict[str, Any]) -> Iterator[tuple[str, str, str, dict[str, Any]]]:
    """Method, network, batch and what was measured, cell by cell."""
    for method, network in product(METHODS_TIMED, NETWORKS_TIMED):
        batches = found.get(method, {}).get(network, {})
        for batch in sorted(batches, key=int):
            yield method, network, batch, batches[batch]


def page(found: dict[str, Any]) -> Iterable[str]:
    """The page beside the JSON."""
    yield "# Speed of one iteration"
    yield ""
    yield from _time_lines(found)
    yield from _split_lines(found)
    yield from _peak_lines(found)
    yield from _profile_lines(found)
    yield from _memory_lines(found)
    yield "## Accuracy over time"
    yield ""
    yield (
        "Fewer iterations save more time than faster ones: [ResNet-20 with the quick schedule and "
        "with the published one](schedules-cifar10.md)."
    )
    yield ""
    yield "![Accuracy over CPU seconds of training, both schedules](schedules-cifar10.svg)"
    yield ""
    hardware = found["hardware"]
    yield (
        f"Hardware: {hardware['cpu']}, {hardware['cpus']} cores. Versions: "
        f"{listed(found['versions'])}. W4A4, all layers, placement relu-output, "
        "ranges frozen, the methods' published losses."
    )


def _time_lines(found: dict[str, Any]) -> Iterable[str]:
    yield "DreamQuant and the published loop in simple eager PyTorch (`benchmarks/plain.py`):"
    yield (
        "milliseconds per iteration, medians of alternating measurements in one run, and the "
        "speed-up."
    )
    yield ""
    yield "| method | network | batch | plain | " + " | ".join(SETTINGS) + " | images/s at best |"
    yield "|---|---|--:|--:|" + "--:|" * len(SETTINGS) + "--:|"
    for method, network, batch, cell in rows(found):
        times = " | ".join(_time(cell.get(name)) for name in SETTINGS)
        best = cell[cell["setting"]]["images_per_second"]
        yield (
            f"| {method} | {network} | {batch} | {cell['plain']['ms']:.0f} | {times} | {best:.0f} |"
        )
    yield ""


def _split_lines(found: dict[str, Any]) -> Iterable[str]:
    yield "## Time of the parts of an iteration"
    yield ""
    yield (
        "DreamQuant runs the forward passes of teacher and student once for generator and student. "
        "Their time is counted at their first use, with the student. In the plain loop, updates "
        "are "
        "part of the other columns."
    )
    yield ""
    yield "| method | network | batch | loop | synthesis | generator | student | update |"
    yield "|---|---|--:|---|--:|--:|--:|--:|"
    for method, network, batch, cell in rows(found):
        for loop in ("plain", *(name for name in SETTINGS if name in cell)):
            split = cell[loop]["split_ms"]
            shown = " | ".join(f"{split[p]:.0f}" if p in split else "–" for p in PHASES)
            yield f"| {method} | {network} | {batch} | {loop} | {shown} |"
    yield ""


def _peak_lines(found: dict[str, Any]) -> Iterable[str]:
    yield "## Compared with the limits of the machine"
    yield ""
    yield (
        "FLOP of a step by PyTorch's counter, divided by its time, as a percentage of the speed "
        "of a "
        f"large matrix product on {found['threads']} threads (in GFLOP/s, float32 and bfloat16):"
    )
    yield ""
    yield "| method | network | batch | GFLOP a step | product | " + " | ".join(SETTINGS) + " |"
    yield "|---|---|--:|--:|--:|" + "--:|" * len(SETTINGS)
    for method, network, batch, cell in rows(found):
        flop = f"{1e3 * cell['float32']['tflop']:.1f}"
        beside = ", ".join(f"{1e3 * peak:.0f}" for peak in cell["peak_tflops"].values())
        shares = " | ".join(_share_of_peak(cell, name) for name in SETTINGS)
        yield f"| {method} | {network} | {batch} | {flop} | {beside} | {shares} |"
    yield ""


def _profile_lines(found: dict[str, Any]) -> Iterable[str]:
    yield "Operations of AdaDFQ on ResNet-20 with batch 16 in float32, by the profiler:"
    yield ""
    yield "| operation | fraction of time |"
    yield "|---|--:|"
    for event in found["operations"]:
        yield f"| `{event['operation']}` | {event['percent']:.1f} % |"
    yield ""


def _memory_lines(found: dict[str, Any]) -> Iterable[str]:
    yield "## Memory"
    yield ""
    yield (
        "MiB of tensors: permanent ones (teacher, student, generator, both optimizers' state), "
        "activations that one forward pass of each network stores for the backward pass without "
        "compiling, and the peak during an iteration."
    )
    yield ""
    yield "| method | network | batch | setting | held | activations | peak | ratio |"
    yield "|---|---|--:|---|--:|--:|--:|--:|"
    for method, network, batch, cell in rows(found):
        for name in (name for name in SETTINGS if "memory_mib" in cell.get(name, {})):
            needed = _memory(cell[name]["memory_mib"])
            yield f"| {method} | {network} | {batch} | {name} | {needed} |"
    for parts, needed in found["parts"].items():
        taken = "at once" if parts == "1" else f"in {parts} parts"
        yield f"| adadfq | resnet20 | 64, {taken} | float32 | {_memory(needed)} |"
    yield ""


def _memory(needed: dict[str, float]) -> str:
    shown = " | ".join(f"{needed[name]:.0f}" for name in ("held", "activations", "peak"))
    return f"{shown} | {needed['ratio']:.2f}"


def _time(measured: dict[str, Any] | None) -> str:
    return "–" if measured is None else f"{measured['ms']:.0f} ({measured['speedup']:.2f} ×)"


def _share_of_peak(cell: dict[str, Any], setting: str) -> str:
    if setting not in cell:
        return "–"
    precision = SETTINGS[setting].precision
    reached = cell[precision]["tflop"] / (cell[setting]["ms"] / 1e3)
    return f"{100 * reached / cell['peak_tflops'][precision]:.0f} %"
