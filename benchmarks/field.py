"""Every method on ResNet-20 of CIFAR-10, equal minutes, by ``dreamquant sweep``.

    OMP_NUM_THREADS=1 nice -n 15 python benchmarks/field.py

The page and the record in ``docs/results`` grow with each cell. The record keeps the manifest of
each cell, so the sweep goes on from it on any machine; without ``out/field-cifar10`` too.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
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

GRID = Path(__file__).with_name("field-cifar10.toml")
OUT = ROOT / "out" / "field-cifar10"
PATH = RESULTS / "field-cifar10.json"
CELLS = RESULTS / "field-cifar10"


def main() -> None:
    """Run the cells that are missing."""
    restore(CELLS, OUT)
    sweep(GRID, OUT, watch=_put_on_record)


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


def _put_on_record(cell: Cell, outcome: Outcome, done: int, total: int) -> None:
    print(f"[{done}/{total}] {cell.describe()}: {outcome.status}", flush=True)
    restore(OUT, CELLS)
    earlier = read_json(PATH)["loads"] if PATH.exists() else {}
    loads = {**earlier, cell.name: os.getloadavg()[0]}
    field = read_field([OUT])
    machine = describe_machine(torch.device("cpu"))
    record = {**as_json(field), "done": done, "cells": total, "loads": loads, **machine}
    write_json(PATH, record)
    write_bytes(PATH.with_suffix(".svg"), chart(field))
    write_page(PATH, _page(field, record))


def _page(field: Field, record: dict[str, Any]) -> Iterator[str]:
    yield as_markdown(field).rstrip()
    loads, hardware, versions = record["loads"], record["hardware"], record["versions"]
    yield ""
    yield "![Accuracy over seconds](field-cifar10.svg)"
    yield ""
    yield (
        f"{record['done']} of {record['cells']} cells so far. {hardware['cpu']}, "
        f"{hardware['threads']} thread, two minutes of wall-clock time for each, synthesis "
        f"included. The machine did other work: its load average was {min(loads.values()):.1f} to "
        f"{max(loads.values()):.1f} when cells ended, so methods that learn took fewer steps than "
        f"they do on a free one. {listed(versions)}. Written by `benchmarks/field.py`."
    )


if __name__ == "__main__":
    main()
