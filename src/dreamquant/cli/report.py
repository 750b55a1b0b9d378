"""The command ``dreamquant report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

Folder = Annotated[Path, Parameter(help="The --out folder of a finished run.")]
More = Annotated[Path, Parameter(help="More result folders, for a comparison.")]
To = Annotated[
    Path | None,
    Parameter(
        metavar="FILE",
        help="File to write; by default report.html, or comparison.html, in the first folder.",
    ),
]


def report(result: Folder, /, *results: More, to: To = None) -> None:
    """Write the report of a result, or a comparison of several, as one HTML file."""
    from dreamquant.report.write import write_report

    print(write_report([result, *results], to))
