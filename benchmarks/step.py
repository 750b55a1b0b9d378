"""Time of one iteration: ours beside the plain published loop, in turns, in one run.

    python benchmarks/step.py                  # what is missing in docs/results/speed.{json,md}
    python benchmarks/step.py --quick --json   # ResNet-20 alone: minutes, one JSON object, no files

Both play the same recipe (the method's published losses and numbers, ranges frozen, W4A4) from the
same state; ``tests/test_benchmarks.py`` holds them to equal results. Networks have random weights:
time does not depend on them.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from multiprocessing import get_context
from typing import Any, NamedTuple

import torch

import memory
from dreamquant.results.describe import describe_machine
from dreamquant.results.files import read_json, write_json
from dreamquant.training.devices import accelerator_for, has_bfloat16
from pages import RESULTS, write_page
from plain import PlainLoop
from roofline import flop, operations, peak_flops
from speed_page import METHODS_TIMED, PHASES, PRECISIONS, SETTINGS, page
from timed import Timed, now, training_of

PATH = RESULTS / "speed.json"
UNCOUNTED = 2


class Cell(NamedTuple):
    """What is timed in which settings, and how many turns each loop gets."""

    network: str
    batch: int
    turns: int
    settings: tuple[str, ...] = ("float32", "bfloat16", "bfloat16 compiled")


QUICK = (
    Cell("resnet20", 16, turns=10),
    Cell("resnet20", 200, turns=2, settings=("float32", "bfloat16")),
)
WHOLE = (
    Cell("resnet20", 16, turns=30, settings=tuple(SETTINGS)),
    Cell("resnet20", 200, turns=6),
    Cell("resnet18", 16, turns=3),
    Cell("mobilenet_v2", 16, turns=3),
)


def plain_step(plain: PlainLoop, batch: int) -> dict[str, float]:
    """One iteration of the yardstick; seconds of its phases."""
    device = next(plain.generator.parameters()).device
    start = now()
    noise = torch.randn(batch, plain.latent, device=device)
    targets = torch.randint(plain.classes, (batch,), device=device)
    images = plain.synthesize(noise, targets)
    drawn = now()
    _, logits = plain.teach_generator(images, targets)
    taught = now()
    plain.teach_student(images, targets, logits)
    return {
        "synthesis": drawn - start,
        "generator": taught - drawn,
        "student": now() - taught,
    }


def our_step(training: Timed) -> dict[str, float]:
    """One iteration of ours; seconds of its phases."""
    training.step()
    return training.phases


def left_out(cell: Cell, device: str) -> dict[str, str]:
    """Settings of a cell that this hardware only imitates, many times slower, and why."""
    if has_bfloat16(device):
        return {}
    reason = "no bfloat16 instructions on this hardware"
    return {name: reason for name in cell.settings if SETTINGS[name].precision == "bfloat16"}


def measure(method: str, cell: Cell, device: str) -> dict[str, Any]:
    """Play the plain loop and ours in turns; ``left_out`` names the settings that are not timed."""
    lacking = left_out(cell, device)
    runs = {
        name: training_of(
            method,
            cell.network,
            cell.batch,
            PRECISIONS[setting.precision],
            device,
            compile=setting.compiled,
        )
        for name, setting in SETTINGS.items()
        if name in cell.settings and name not in lacking
    }
    plain = PlainLoop(runs["float32"])
    players: dict[str, Callable[[], dict[str, float]]] = {
        "plain": lambda: plain_step(plain, cell.batch),
        **{name: (lambda run=run: our_step(run)) for name, run in runs.items()},  # type: ignore[misc]
    }
    taken: dict[str, list[dict[str, float]]] = {name: [] for name in players}
    # The first turns are not counted: memory is laid out then, and graphs are compiled.
    for _ in range(cell.turns + UNCOUNTED):
        for name, play in players.items():
            taken[name].append(play())
    found = {name: _summary(times[UNCOUNTED:], cell.batch) for name, times in taken.items()}
    baseline = found.pop("plain")
    for ours in found.values():
        ours["speedup"] = baseline["ms"] / ours["ms"]
    for name in (name for name in PRECISIONS if name in runs):
        found[name]["tflop"] = flop(runs[name]) / 1e12
    for name, run in runs.items():
        found[name]["memory_mib"] = memory.measure(run)
    fastest = max(found, key=lambda name: found[name]["speedup"])
    return {
        "speedup": found[fastest]["speedup"],
        "setting": fastest,
        "plain": baseline,
        **found,
        "turns": cell.turns,
        "peak_tflops": {
            name: peak_flops(p, device) / 1e12 for name, p in PRECISIONS.items() if name in runs
        },
        **({"left_out": lacking} if lacking else {}),
    }


def _summary(times: list[dict[str, float]], batch: int) -> dict[str, Any]:
    seconds = statistics.median(sum(phases.values()) for phases in times)
    split = {
        phase: 1e3 * statistics.median(phases[phase] for phases in times)
        for phase in PHASES
        if phase in times[0]
    }
    return {"ms": 1e3 * seconds, "images_per_second": batch / seconds, "split_ms": split}


def memory_in_parts(parts: int, device: str) -> dict[str, float]:
    """MiB of an AdaDFQ iteration on ResNet-20 whose batch of 64 comes in so many parts."""
    training = training_of("adadfq", "resnet20", 64, "32", device, micro_batches=parts)
    training.step()
    return memory.measure(training)


def machine(device: str) -> dict[str, Any]:
    """The machine, and values that are the same for all cells."""
    return {
        "threads": torch.get_num_threads(),
        **describe_machine(accelerator_for(device, "32").device),
        "parts": {str(parts): memory_in_parts(parts, device) for parts in (1, 2, 4)},
        "operations": operations(training_of("adadfq", "resnet20", 16, "32", device)),
    }


def apart(function: Callable[..., dict[str, Any]], *arguments: Any) -> dict[str, Any]:
    """Call it in a process of its own, whose memory and graphs end with it."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def fill(
    found: dict[str, Any], cells: Iterable[Cell], device: str, keep: Callable[[], None]
) -> None:
    """Measure what is missing in ``found``, read as ``["adadfq"]["resnet20"]["16"]["speedup"]``.

    Args:
        found: so far.
        cells: to measure.
        device: to measure on.
        keep: called after each.
    """
    if "threads" not in found:
        found |= apart(machine, device)
    for cell, method in product(cells, METHODS_TIMED):
        batches = found.setdefault(method, {}).setdefault(cell.network, {})
        if str(cell.batch) in batches:
            continue
        print(f"{method} {cell}", file=sys.stderr, flush=True)
        batches[str(cell.batch)] = apart(measure, method, cell, device)
        keep()


def main() -> None:
    """Measure, then print or write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="ResNet-20 alone, few turns, no page")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--device", default="auto")
    asked = parser.parse_args()
    found: dict[str, Any] = {}

    def keep() -> None:
        if not asked.quick:
            write_json(PATH, found)
            write_page(PATH, page(found))

    if not asked.quick and PATH.exists():
        found = read_json(PATH)
    fill(found, QUICK if asked.quick else WHOLE, asked.device, keep)
    if asked.json:
        print(json.dumps(found))


if __name__ == "__main__":
    main()
