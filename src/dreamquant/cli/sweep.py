"""The commands ``dreamquant sweep`` and ``dreamquant compare``."""

from __future__ import annotations

import sys
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Group, Parameter

from dreamquant.cli import options
from dreamquant.cli.ending import resumable

if TYPE_CHECKING:
    from dreamquant.jobs.cell import Outcome
    from dreamquant.jobs.grid import Cell
    from dreamquant.report.field import Field

_RUNNING = Group.create_ordered("Running")

Grid = Annotated[
    Path,
    Parameter(
        help="A TOML file of networks and options with their values; see the guide on sweeps."
    ),
]
Out = Annotated[
    Path, options.value(options.RESULT, "DIR", "Folder of the sweep; an existing sweep continues.")
]
Ray = Annotated[
    str | None,
    options.value(
        _RUNNING,
        "ADDRESS",
        "Run cells side by side on this Ray cluster; local starts one here. By default, one "
        "after another without Ray.",
    ),
]
Cpus = Annotated[
    float, options.value(_RUNNING, "X", "CPUs of a cell on the cluster; may be a fraction.")
]
Gpus = Annotated[
    float, options.value(_RUNNING, "X", "GPUs of a cell on the cluster; may be a fraction.")
]
Retry = Annotated[bool, options.flag(_RUNNING, "Run failed cells again.")]
Folders = Annotated[Path, Parameter(help="Result folders, or folders of sweeps.")]
To = Annotated[
    Path | None,
    options.value(
        options.RESULT,
        "DIR",
        "Folder for compare.md, compare.json and the chart compare.svg; without it, only the "
        "table is printed.",
    ),
]


def sweep(
    grid: Grid,
    /,
    *,
    out: Out,
    ray: Ray = None,
    cpus: Cpus = 1.0,
    gpus: Gpus = 0.0,
    retry: Retry = False,
    json: options.Json = False,
) -> None:
    """Quantize every network of a grid under every combination of its options."""
    with resumable(out):
        from dreamquant.jobs.sweep import Cluster
        from dreamquant.jobs.sweep import sweep as run

        cluster = None if ray is None else Cluster(ray, cpus, gpus)
        outcomes = run(grid, out, cluster=cluster, retry=retry, watch=_tell)
    if json:
        print(dumps({"out": str(out), "cells": [vars(outcome) for outcome in outcomes]}))
    elif any(outcome.status == "finished" for outcome in outcomes):
        compare(out)


def compare(*folders: Folders, to: To = None, json: options.Json = False) -> None:
    """Compare results, with one table for each protocol."""
    from dreamquant.report.field import as_json, read_field

    field = read_field(folders)
    if to is not None:
        _write(field, to)
    if json:
        print(dumps(as_json(field)))
    else:
        _show(field)


def _tell(cell: Cell, outcome: Outcome, done: int, total: int) -> None:
    failed = f"FAILED: {outcome.error.splitlines()[0]}" if outcome.error else "finished"
    line = f"[{done}/{total}] {cell.describe()}: {failed} after {outcome.seconds:.0f} s"
    print(line, file=sys.stderr, flush=True)


def _write(field: Field, to: Path) -> None:
    from dreamquant.diagnostics.figure import require_matplotlib
    from dreamquant.report.field import as_json, as_markdown
    from dreamquant.report.field_chart import chart
    from dreamquant.results.files import make_folder, write_bytes, write_json

    require_matplotlib("charts", "--to")
    make_folder(to)
    write_json(to / "compare.json", as_json(field))
    write_bytes(to / "compare.svg", chart(field))
    write_bytes(to / "compare.md", as_markdown(field).encode())


def _show(field: Field) -> None:
    from statistics import fmean

    from dreamquant.cli.tables import print_table, print_text
    from dreamquant.report.compare import protocol_names

    for group in field.groups:
        print_text(group.title, "bold")
        names = protocol_names(group.protocol)
        print_text("; ".join(f"{name}: {value}" for name, value in names.items()))
        rows = [
            (
                row.method,
                row.told,
                f"{fmean(row.rounded):.2f}" if row.rounded else "",
                f"{fmean(row.seconds):.0f}",
                str(len(row.values)),
            )
            for row in group.rows
        ]
        print_table(("method", f"{group.measure}, %", "rounding alone", "seconds", "seeds"), rows)
        print_text()
    for name, error in field.failures.items():
        print_text(f"failed: {name}: {error}")
