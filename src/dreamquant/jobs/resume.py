"""The files that a stopped run left in its folder."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar, cast

from dreamquant.errors import ResultError
from dreamquant.jobs import checkpoint
from dreamquant.jobs.run_request import JobRequest
from dreamquant.results.folder import CHECKPOINT, require_no_result
from dreamquant.results.manifest import MANIFEST, read_manifest
from dreamquant.training.devices import (
    AUTO,
    Precision,
    bfloat16_ratio,
    chosen_precision,
    has_bfloat16,
)

Asked = TypeVar("Asked", bound=JobRequest)


def with_settled_precision(request: Asked, folder: Path | None) -> Asked:
    """The request with ``auto`` replaced by the precision of the run.

    A resumed run keeps its first precision, also on another machine: with two precisions, neither
    machine could repeat the result. The manifest records the precision, so that the run can be
    repeated anywhere.

    Args:
        request: of the user.
        folder: of the result, if there is one.

    Warns:
        UserWarning: bfloat16 was asked for, and this hardware has no instructions for it.
    """
    if request.precision == AUTO:
        begun = _precision_of(folder) if request.resume and folder is not None else None
        return replace(request, precision=begun or chosen_precision(request.device))
    if request.precision == "bf16" and not has_bfloat16(request.device):
        ratio = bfloat16_ratio(request.device)
        warnings.warn(
            "this hardware has no bfloat16 instructions: one convolution takes "
            f"{ratio:.1f} times as long in bfloat16 as in float32. --precision auto would take 32.",
            stacklevel=3,
        )
    return request


def _precision_of(folder: Path) -> Precision | None:
    """The precision of the finished or stopped run in a folder; or ``None``."""
    if (folder / MANIFEST).exists():
        return _on_record(read_manifest(folder).get("configuration", {}))
    if (folder / CHECKPOINT / checkpoint.STATE).exists():
        return _on_record(checkpoint.read(folder / CHECKPOINT)["configuration"])
    return None


def _on_record(configuration: Mapping[str, Any]) -> Precision | None:
    return cast(Precision | None, configuration.get("precision"))


def open_folder(
    folder: Path | None, configuration: Mapping[str, Any], *, resume: bool
) -> dict[str, Any] | None:
    """Read the checkpoint in the result folder if the run is to continue; nothing is written yet.

    Returns:
        The checkpoint; ``None`` if the run starts, also if an earlier one was killed before it had
            saved anything.

    Raises:
        ResultError: the folder holds a result, or an unfinished run that was not to be resumed.
        TrainingError: the checkpoint is damaged, or belongs to another run.
    """
    if folder is None:
        if resume:
            raise ResultError(
                "there is nothing to resume without a folder",
                where="--out",
                remedy="give the folder of the stopped run",
            )
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
