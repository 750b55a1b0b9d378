"""What all pages in ``docs/results`` share."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from dreamquant.results.files import write_bytes

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
