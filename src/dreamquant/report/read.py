"""What a result folder holds, as far as a report shows it."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dreamquant.errors import ResultError
from dreamquant.results.files import read_json
from dreamquant.results.manifest import MANIFEST, read_manifest
from dreamquant.results.result import ANALYSIS

_LARGEST_PICTURE = 1_000_000  # bytes; a page with base64 of three of them stays below 5 MB


@dataclass(frozen=True)
class Picture:
    """An image to embed: its caption, and the whole file as a ``data:`` address."""

    caption: str
    source: str


@dataclass(frozen=True)
class Record:
    """One result, read.

    Attributes:
        folder: it lies in.
        manifest: as saved.
        analysis: as saved, or empty for results of a version that made none.
        diagnostics: pictures that a run with diagnostics left.
    """

    folder: Path
    manifest: dict[str, Any]
    analysis: dict[str, Any]
    diagnostics: tuple[Picture, ...]


def read_record(folder: Path) -> Record:
    """The result in a folder.

    Raises:
        ResultError: there is none, or it cannot be read.
    """
    manifest = read_manifest(folder)
    path = folder / ANALYSIS
    analysis = read_json(path) if path.is_file() else {}
    return Record(folder, manifest, analysis, tuple(_diagnostics(folder)))


def _diagnostics(folder: Path) -> Iterator[Picture]:
    for path in sorted(folder.glob("diagnostics*.png")):
        data = path.read_bytes()
        if len(data) <= _LARGEST_PICTURE:
            caption = path.stem.replace("_", " ").replace("-", " ").capitalize()
            yield Picture(caption, f"data:image/png;base64,{base64.b64encode(data).decode()}")


@contextmanager
def damage_named(folder: Path) -> Iterator[None]:
    """Turn what a record of other fields or types ends in into an error that names the folder.

    Raises:
        ResultError: the record is damaged.
    """
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise ResultError(
            f"the result cannot be shown: its record is damaged ({type(error).__name__}: {error})",
            where=str(folder / MANIFEST),
            remedy="quantize again or restore a copy",
        ) from error
