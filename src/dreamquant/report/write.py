"""Reports as files: beside a result when a run ends, or when asked for."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

from dreamquant.report.compare import render_comparison
from dreamquant.report.read import read_record
from dreamquant.report.render import render
from dreamquant.results.files import write_bytes
from dreamquant.results.folder import REPORT

COMPARISON = "comparison.html"


def write_report(folders: Sequence[Path], to: Path | None = None) -> Path:
    """Write the report of a result, or the comparison of several.

    Args:
        folders: of the results, at least one.
        to: the file; by default ``report.html``, or ``comparison.html``, in the first folder.

    Returns:
        The file.

    Raises:
        ResultError: a folder holds no result or a damaged one, or the file cannot be written.
    """
    records = [read_record(folder) for folder in folders]
    page = render(records[0]) if len(records) == 1 else render_comparison(records)
    path = to or folders[0] / (REPORT if len(records) == 1 else COMPARISON)
    write_bytes(path, page.encode())
    return path


def write_after_run(folder: Path) -> None:
    """Write the report of a result just saved; a failure is a warning, for the result is whole."""
    try:
        write_report([folder])
    except Exception as error:
        warnings.warn(
            f"the result is saved, but its report could not be written: {error}; "
            f"`dreamquant report {folder}` tries again",
            RuntimeWarning,
            stacklevel=2,
        )
