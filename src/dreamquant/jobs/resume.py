"""What a killed run left behind in its folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dreamquant.errors import ResultError
from dreamquant.jobs import checkpoint
from dreamquant.results.result import CHECKPOINT, require_no_result


def open_folder(
    folder: Path | None, configuration: Mapping[str, Any], *, resume: bool
) -> dict[str, Any] | None:
    """Read the checkpoint in the result folder where the run is to go on; nothing is written yet.

    Returns:
        The checkpoint; ``None`` where the run starts, be it because an earlier one was killed
        before it had saved anything.

    Raises:
        ResultError: the folder holds a result, or an unfinished run that was not to be resumed.
        TrainingError: the checkpoint is damaged, or of another run.
    """
    if folder is None:
        if resume:
            raise ResultError("there is nothing to resume without a folder", where="--out")
        return None
    require_no_result(folder)
    if not (folder / CHECKPOINT / checkpoint.STATE).exists():
        return None
    if not resume:
        raise ResultError(
            f"{folder} holds an unfinished run",
            where="--out",
            remedy="add --resume to go on with it, or give another folder",
        )
    saved = checkpoint.read(folder / CHECKPOINT)
    checkpoint.require_same_run(saved["configuration"], configuration, folder / CHECKPOINT)
    return saved
