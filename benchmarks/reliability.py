"""Reliability of runs: kills, full disks, malicious files, and twenty thousand iterations.

    python benchmarks/reliability.py                 # all that is not on record yet
    python benchmarks/reliability.py --only kills

Each part is put on record when it is over, in ``docs/results/reliability.json``, and not repeated.
A part that fails ends the command with its error, and is not on record.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

import faults
import fuzzing
import kills
import leaks
import tiny
from dreamquant.results.describe import describe_machine
from dreamquant.results.files import read_json, write_json
from pages import RESULTS, cpu_seconds, listed, write_page

PATH = RESULTS / "reliability.json"
KILLS, KILLED_ITERATIONS = 50, 40
CASES = 1000  # of each surface
ITERATIONS, EVERY = 20_000, 200
SEED = 0


def kill(folder: Path) -> dict[str, Any]:
    """Runs of the command line killed in every phase."""
    tally = kills.survive(KILLS, folder, iterations=KILLED_ITERATIONS, seed=SEED)
    return asdict(tally) | {"iterations": KILLED_ITERATIONS}


def fill_disks(folder: Path) -> dict[str, Any]:
    """Runs whose disk is full at one write after the other."""
    whole = folder / "whole"
    tiny.job(whole)
    said = {
        "each write of the run in turn": faults.survive(
            tiny.job, folder / "writes", whole, faults.full_after
        ),
        "files of more than so many bytes": faults.survive(
            tiny.job, folder / "large", whole, lambda n: faults.no_file_above(64 * 4**n)
        ),
    }
    with faults.small_disk(folder / "disk") as resize:

        def disk(attempt: int) -> AbstractContextManager[None]:
            resize(64 * 2**attempt)
            return nullcontext()

        said["a file system of its own"] = faults.survive(
            tiny.job, folder / "disk" / "out", whole, disk
        )
    return {name: len(messages) for name, messages in said.items()}


def fuzz(folder: Path) -> dict[str, Any]:
    """Damaged and malicious files and arguments."""
    return {
        surface.name: asdict(fuzzing.fuzz(surface, folder, cases=CASES, chance=SEED))
        for surface in fuzzing.surfaces(folder)
    }


def leak(folder: Path) -> dict[str, Any]:
    """Levels of memory and handles over a long run."""
    levels = leaks.watch(folder / "out", ITERATIONS, EVERY)
    half = len(levels.iterations) // 2
    return {
        "iterations": ITERATIONS,
        "bytes_per_iteration": levels.slope(levels.resident),
        "tensors_per_iteration": levels.slope(levels.tensors),
        "files_per_iteration": levels.slope(levels.files),
        "resident_mib": [
            statistics.mean(part) / 2**20
            for part in (levels.resident[half : half + 10], levels.resident[-10:])
        ],
        "levels": asdict(levels),
    }


PARTS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "kills": kill,
    "disks": fill_disks,
    "fuzzing": fuzz,
    "leaks": leak,
}


def page(parts: dict[str, Any]) -> Iterable[str]:
    """The page beside the record."""
    yield "# Reliability: what a run survives"
    for name, lines in _SECTIONS.items():
        if name in parts:
            yield ""
            yield from lines(parts[name])
    yield ""
    yield "## Protocol"
    yield ""
    machine = next(iter(parts.values()))
    seconds = ", ".join(f"{name} {part['cpu_seconds']:.0f}" for name, part in parts.items())
    yield (
        f"A network of three layers on images of 1 x 8 x 8 at W3A3 by AdaDFQ; seed {SEED}. "
        f"CPU seconds: {seconds}. {machine['hardware']['cpu']}, {machine['hardware']['cpus']} "
        f"cores, {machine['hardware']['threads']} thread; other work ran on the machine. "
        f"Versions: {listed(machine['versions'])}."
    )


def _kills(part: dict[str, Any]) -> Iterable[str]:
    found = part["found"]
    total = sum(found["kills"].values())
    yield "## Kills"
    yield ""
    yield (
        f"{total} of {total} runs continued after a kill: `dreamquant quantize` with "
        f"{found['iterations']} iterations in a separate process got SIGKILL at a random moment of "
        f"each phase, then ran with `--resume`. {found['runs']} runs were completed in this way. "
        f"Each `samples.png` and `student.safetensors` is equal, bit for bit, to that of a run "
        f"without kills. After the kills, {found['whole_files']} files had their final names, and "
        f"all were complete."
    )
    yield ""
    yield "| killed in | kills |"
    yield "|---|--:|"
    yield from (f"| {phase} | {count} |" for phase, count in found["kills"].items())


def _disks(part: dict[str, Any]) -> Iterable[str]:
    yield "## Full disks"
    yield ""
    yield (
        "Each attempt ended with an error that names the file and the remedy. With more space, the "
        "same command continued, and the result equals that of a run with enough space."
    )
    yield ""
    yield "| what was full | attempts refused |"
    yield "|---|--:|"
    yield from (f"| {name} | {count} |" for name, count in part["found"].items())


def _fuzzing(part: dict[str, Any]) -> Iterable[str]:
    found = part["found"]
    yield "## Fuzzing"
    yield ""
    yield (
        f"{sum(outcome['cases'] for outcome in found.values())} cases: each ended with a "
        f"documented "
        "error or a result. None wrote outside its folder, started a program, opened a "
        "connection, or "
        "ran code from the file (an audit hook checks this)."
    )
    yield ""
    yield "| surface | cases | refused | slowest, s |"
    yield "|---|--:|--:|--:|"
    for name, outcome in found.items():
        yield f"| {name} | {outcome['cases']} | {outcome['refused']} | {outcome['seconds']:.2f} |"


def _leaks(part: dict[str, Any]) -> Iterable[str]:
    found = part["found"]
    begin, end = found["resident_mib"]
    yield "## Memory"
    yield ""
    yield (
        f"{found['iterations']} iterations with log, checkpoints and history; slopes by least "
        "squares over the second half."
    )
    yield ""
    yield "| quantity | per iteration |"
    yield "|---|--:|"
    yield f"| resident memory, bytes | {found['bytes_per_iteration']:.1f} |"
    yield f"| tensors alive | {found['tensors_per_iteration']:.5f} |"
    yield f"| open files | {found['files_per_iteration']:.5f} |"
    yield ""
    yield f"Resident memory after half of the iterations {begin:.1f} MiB, at the end {end:.1f} MiB."


_SECTIONS = {"kills": _kills, "disks": _disks, "fuzzing": _fuzzing, "leaks": _leaks}


def _measured(part: Callable[[Path], dict[str, Any]]) -> dict[str, Any]:
    before = cpu_seconds()
    with tempfile.TemporaryDirectory() as folder:
        found = part(Path(folder))
    return {
        "found": found,
        "seed": SEED,
        "cpu_seconds": cpu_seconds() - before,
        **describe_machine(torch.device("cpu")),
    }


def main() -> None:
    """Measure what is not on record, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=PARTS)
    asked = parser.parse_args()
    for name in [asked.only] if asked.only else PARTS:
        parts = read_json(PATH)["parts"] if PATH.exists() else {}
        if name in parts:
            continue
        parts[name] = _measured(PARTS[name])
        parts = {known: parts[known] for known in PARTS if known in parts}
        write_json(PATH, {"title": "Reliability", "parts": parts})
        write_page(PATH, page(parts))


if __name__ == "__main__":
    main()
