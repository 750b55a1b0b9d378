"""Methods on ResNet-20 of CIFAR-10, equal minutes, by ``dreamquant sweep``.

    OMP_NUM_THREADS=1 nice -n 15 python benchmarks/field.py [GRID]

A grid is a file beside this one: ``field-cifar10`` has every method, ``stored-cifar10`` those that
keep their images or need none, ``reconstruction-cifar10`` those that reconstruct blocks, with 8
bits at both ends. Page and record in ``docs/results`` grow with each cell. The record keeps the
manifest of each cell, so a sweep goes on from it on any machine, without its folder in ``out`` too.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch

from dreamquant.jobs.cell import Outcome
from dreamquant.jobs.grid import Cell
from dreamquant.jobs.sweep import sweep
from dreamquant.report.field import Field, as_json, as_markdown, read_field
from dreamquant.report.field_chart import chart
from dreamquant.results.describe import describe_machine
from dreamquant.results.files import read_json, write_bytes, write_json
from dreamquant.results.manifest import MANIFEST
from grid import ROOT
from pages import RESULTS, listed, write_page

NAMES = ("field-cifar10", "stored-cifar10", "reconstruction-cifar10")


def main() -> None:
    """Run the cells that are missing."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("grid", nargs="?", default=NAMES[0], choices=NAMES)
    name = parser.parse_args().grid
    out = ROOT / "out" / name
    restore(RESULTS / name, out)
    sweep(grid_of(name), out, watch=partial(_put_on_record, name, out))


def grid_of(name: str) -> Path:
    """The file of a grid."""
    return Path(__file__).with_name(f"{name}.toml")


def restore(record: Path, out: Path) -> None:
    """Put the manifests and failures on record where a sweep looks for ended cells.

    The other way round it puts ended cells on record. Manifests name files without their folders,
    which are those of one machine.
    """
    for path in [*record.glob(f"*/{MANIFEST}"), *record.glob("failures/*.json")]:
        there = out / path.relative_to(record)
        if there.exists():
            continue
        kept = read_json(path)
        network = kept.get("network", {})
        network |= {
            name: Path(network[name]).name for name in ("name", "weights") if name in network
        }
        there.parent.mkdir(parents=True, exist_ok=True)
        write_json(there, kept)


def _put_on_record(
    name: str, out: Path, cell: Cell, outcome: Outcome, done: int, total: int
) -> None:
    print(f"[{done}/{total}] {cell.describe()}: {outcome.status}", flush=True)
    restore(out, RESULTS / name)
    path = RESULTS / f"{name}.json"
    earlier = read_json(path)["loads"] if path.exists() else {}
    loads = {**earlier, cell.name: os.getloadavg()[0]}
    field = read_field([out])
    machine = describe_machine(torch.device("cpu"))
    record = {**as_json(field), "done": done, "cells": total, "loads": loads, **machine}
    write_json(path, record)
    write_bytes(path.with_suffix(".svg"), chart(field))
    write_page(path, _page(name, field, record))


def _page(name: str, field: Field, record: dict[str, Any]) -> Iterator[str]:
    yield as_markdown(field).rstrip()
    loads, hardware, versions = record["loads"], record["hardware"], record["versions"]
    yield ""
    yield f"![Accuracy over seconds]({name}.svg)"
    yield ""
    yield (
        f"{record['done']} of {record['cells']} cells so far. {hardware['cpu']}, "
        f"{hardware['threads']} thread; the time beside a method is wall-clock time, synthesis "
        f"included. The machine did other work: its load average was {min(loads.values()):.1f} to "
        f"{max(loads.values()):.1f} when cells ended, so methods that learn took fewer steps than "
        f"they do on a free one. {listed(versions)}. Written by `benchmarks/field.py {name}`."
    )


if __name__ == "__main__":
    main()
