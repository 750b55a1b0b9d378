"""What all pages in ``docs/results`` share."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock

from dreamquant.results.files import read_json, write_bytes, write_json

Cell = TypeVar("Cell", bound=tuple[str, ...])

RESULTS = Path(__file__).resolve().parents[1] / "docs" / "results"


def write_page(path: Path, lines: Iterable[str]) -> None:
    """Write a page beside its record.

    Args:
        path: of the record.
        lines: of the page.
    """
    write_bytes(path.with_suffix(".md"), "\n".join([*lines, ""]).encode())


def listed(versions: Mapping[str, str]) -> str:
    """``python 3.11.7, torch 2.15.0``."""
    return ", ".join(f"{name} {version}" for name, version in versions.items())


def cpu_seconds() -> float:
    """Of this process so far, and of those that it started and that are over."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def runs_on(path: Path) -> list[dict[str, Any]]:
    """All runs on record at ``path``."""
    return read_json(path)["runs"] if path.exists() else []


def grow(
    path: Path,
    title: str,
    missing: Callable[[], Iterable[Cell]],
    measure: Callable[..., dict[str, Any]],
    write: Callable[[], None],
) -> None:
    """Run the cells that are missing, for ``--limit`` seconds; the record grows with each.

    Args:
        path: the record.
        title: of the record.
        missing: gives the cells that are not on record.
        measure: runs a cell.
        write: writes the page from the record; called after each cell.
    """
    parser = argparse.ArgumentParser(description=title)
    parser.add_argument("--limit", type=float, default=3600.0, help="seconds to begin cells in")
    limit = time.monotonic() + parser.parse_args().limit
    for cell in missing():
        if time.monotonic() > limit:
            break
        print(*cell, flush=True)
        run = measure(*cell)
        with FileLock(path.with_name(f".{path.name}.lock")):
            write_json(path, {"title": title, "runs": [*runs_on(path), run]})
        write()
    write()
