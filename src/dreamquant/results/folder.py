"""The result folder: the names of its files, claimed before a run and cleared after one."""

from __future__ import annotations

import shutil
from pathlib import Path

from dreamquant.errors import ResultError
from dreamquant.results.files import (
    make_folder,
)
from dreamquant.results.manifest import (
    MANIFEST,
    read_manifest,
    read_origin,
)

CHECKPOINT, LOG = "checkpoint", "log"
STUDENT, SAMPLES, ANALYSIS = "student.safetensors", "samples.png", "analysis.json"
REPORT = "report.html"
DIAGNOSTICS, DIAGNOSTICS_PICTURE = "diagnostics.json", "diagnostics.png"


def require_no_result(folder: Path) -> None:
    """Refuse a folder that holds a result.

    Raises:
        ResultError: it does.
    """
    if (folder / MANIFEST).exists():
        raise ResultError(
            f"{folder} already holds a result",
            where="--out",
            remedy="give another folder, or delete this one",
        )


def claim_folder(folder: Path) -> None:
    """Make a folder for a result.

    Raises:
        ResultError: it already holds one, or cannot be made.
    """
    require_no_result(folder)
    make_folder(folder)


def remove_result(folder: Path, *, made_from: str) -> None:
    """Delete a result that a given teacher left in a folder, if there is one.

    Args:
        folder: of the result.
        made_from: sha256 of the teacher's weights; results of others stay.
    """
    if not (folder / MANIFEST).is_file():
        return
    if read_origin(read_manifest(folder), folder).weights_sha256 == made_from:
        for name in (
            MANIFEST,
            STUDENT,
            SAMPLES,
            ANALYSIS,
            DIAGNOSTICS,
            DIAGNOSTICS_PICTURE,
            REPORT,
        ):
            (folder / name).unlink(missing_ok=True)
        for name in (CHECKPOINT, LOG):
            shutil.rmtree(folder / name, ignore_errors=True)
