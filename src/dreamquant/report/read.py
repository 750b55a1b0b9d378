"""What a result folder holds, as far as a report shows it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import TemplateError

from dreamquant.errors import ResultError
from dreamquant.report.diagnostics import Diagnostics, read_diagnostics
from dreamquant.results.files import read_json
from dreamquant.results.folder import ANALYSIS
from dreamquant.results.manifest import MANIFEST, read_manifest

# What a record of other fields, types or values ends in, here or in a template.
_DAMAGE = (
    LookupError,
    TypeError,
    ValueError,
    AttributeError,
    ArithmeticError,
    OSError,
    TemplateError,
)


@dataclass(frozen=True)
class Record:
    """One result, read.

    Attributes:
        folder: it lies in.
        manifest: as saved.
        analysis: as saved, or empty for results of a version that made none.
        diagnostics: of a run that was asked for them.
    """

    folder: Path
    manifest: dict[str, Any]
    analysis: dict[str, Any]
    diagnostics: Diagnostics | None


def read_record(folder: Path) -> Record:
    """The result in a folder.

    Raises:
        ResultError: the file is missing or cannot be read.
    """
    manifest = read_manifest(folder)
    path = folder / ANALYSIS
    # Earlier versions analysed students on the method's own images.
    analysis = {"on": "synthetic images", **read_json(path)} if path.is_file() else {}
    with damage_named(folder):
        return Record(folder, manifest, analysis, read_diagnostics(folder))


@contextmanager
def damage_named(folder: Path) -> Iterator[None]:
    """Turn what a record of other fields or types ends in into an error that names the folder.

    Raises:
        ResultError: the record is damaged.
    """
    try:
        yield
    except _DAMAGE as error:
        raise ResultError(
            f"the result cannot be shown: its record is damaged ({type(error).__name__}: {error})",
            where=str(folder / MANIFEST),
            remedy="quantize again or restore a copy",
        ) from error
