"""Sweeps: all cells of a grid, one after another here or in parallel on a Ray cluster."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dreamquant.errors import DreamQuantError, ResultError
from dreamquant.jobs.cell import Outcome, known, run_cell
from dreamquant.jobs.grid import Cell, read_grid
from dreamquant.results.files import make_folder, write_json

SWEEP = "sweep.json"
_RETRIES = 3  # number of tries of a cell whose worker was lost


@dataclass(frozen=True)
class Cluster:
    """A Ray cluster, and the resources of a cell.

    Attributes:
        address: of a Ray cluster, or ``local`` for one on this machine. Its workers must see the
            grid's folder and the sweep's under the same paths.
        cpus: CPUs of each cell; with a fraction, several cells use one.
        gpus: GPUs of each cell; with a fraction, several cells use one.
    """

    address: str
    cpus: float = 1.0
    gpus: float = 0.0


def sweep(
    grid: Path,
    out: Path,
    *,
    cluster: Cluster | None = None,
    retry: bool = False,
    watch: Callable[[Cell, Outcome, int, int], None] = lambda *_: None,
) -> list[Outcome]:
    """Run every cell of a grid that has not been run yet.

    A cell that is finished is never run again, a stopped one goes on where it was, and a failed
    one is a row like the others. Cells are known by what was asked for: another grid in the same
    folder shares the cells that are equal.

    Args:
        grid: as :func:`~dreamquant.jobs.grid.read_grid` takes it.
        out: folder of the sweep; each result lies in one of its own there.
        cluster: where cells run side by side; by default one after another on this machine.
        retry: run the cells again that failed before.
        watch: called for each cell that has ended: the cell, how it ended, how many have, of how
            many.

    Returns:
        The outcomes in the grid's order; ``sweep.json`` in ``out`` holds them too.

    Raises:
        DreamQuantError: the grid cannot be read, a cell could never run, or Ray is not there.
        KeyboardInterrupt: it was stopped; the same call goes on.
    """
    cells = read_grid(grid)
    make_folder(out)
    out, folder = out.resolve(), grid.resolve().parent
    before = {cell.name: known(out, cell) for cell in cells}
    ended = {
        name: outcome
        for name, outcome in before.items()
        if outcome is not None and not (retry and outcome.status == "failed")
    }
    _record(out, grid, cells, ended)
    open_cells = [cell for cell in cells if cell.name not in ended]
    run = _here if cluster is None else _on(cluster)
    for cell, outcome in run(open_cells, out, folder):
        ended[cell.name] = outcome
        _record(out, grid, cells, ended)
        watch(cell, outcome, len(ended), len(cells))
    return [ended[cell.name] for cell in cells]


def _record(out: Path, grid: Path, cells: Sequence[Cell], ended: dict[str, Outcome]) -> None:
    rows = [
        {
            "cell": cell.name,
            "network": cell.network,
            "options": dict(cell.options),
            "key": cell.key,
            "status": ended[cell.name].status if cell.name in ended else "open",
            "error": ended[cell.name].error if cell.name in ended else "",
        }
        for cell in cells
    ]
    write_json(out / SWEEP, {"grid": grid.name, "cells": rows})


Running = Callable[[Sequence[Cell], Path, Path], Iterator[tuple[Cell, Outcome]]]


def _here(cells: Sequence[Cell], out: Path, folder: Path) -> Iterator[tuple[Cell, Outcome]]:
    for cell in cells:
        yield cell, run_cell(cell, out, folder)


def _on(cluster: Cluster) -> Running:
    ray = _ray()
    try:
        ray.init(
            address=None if cluster.address == "local" else cluster.address,
            log_to_driver=False,
            include_dashboard=False if cluster.address == "local" else None,
        )
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise ResultError(
            f"there is no Ray cluster: {error}",
            where=f"--ray {cluster.address}",
            remedy="give the address that `ray start --head` printed, or local",
        ) from error
    remote = ray.remote(num_cpus=cluster.cpus, num_gpus=cluster.gpus, max_retries=_RETRIES)

    def run(cells: Sequence[Cell], out: Path, folder: Path) -> Iterator[tuple[Cell, Outcome]]:
        try:
            running = {remote(run_cell).remote(cell, out, folder): cell for cell in cells}
            while running:
                (done,), _ = ray.wait(list(running), num_returns=1)
                cell = running.pop(done)
                yield cell, _outcome(ray, done, cell)
        finally:
            ray.shutdown()

    return run


def _outcome(ray: Any, done: Any, cell: Cell) -> Outcome:
    try:
        outcome: Outcome = ray.get(done)
    except ray.exceptions.WorkerCrashedError:
        return Outcome(cell.name, "failed", 0.0, f"its worker was lost {_RETRIES + 1} times")
    return outcome


def _ray() -> Any:
    try:
        return importlib.import_module("ray")
    except ImportError as error:
        raise DreamQuantError(
            "Ray cannot be used: " + str(error),
            where="--ray",
            remedy="pip install 'dreamquant[sweep]'",
        ) from error
