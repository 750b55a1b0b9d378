"""The result folder: names of its files, and functions to claim and to clear it."""

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
    """Refuse a folder that contains a result.

    Raises:
        ResultError: it contains one.
    """
    if (folder / MANIFEST).exists():
        raise ResultError(
            f"{folder} already contains a result",
            where="--out",
            remedy="give another folder, or delete this one",
        )


def claim_folder(folder: Path) -> None:
    """Make a folder for a result.

    Raises:
        ResultError: it already contains a result, or cannot be made.
    """
    require_no_result(folder)
    make_folder(folder)


def remove_result(folder: Path, *, made_from: str) -> None:
    """Delete the result in a folder if it was made from a given teacher.

    Args:
        folder: folder of the result.
        made_from: SHA-256 of the teacher's weights; results of other teachers stay.
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
