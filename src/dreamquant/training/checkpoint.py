"""Checkpoints: a killed run goes on from the last one, bit for bit."""

from __future__ import annotations

import io
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from dreamquant.errors import TrainingError

STATE = "state.pt"


def encode(state: Mapping[str, Any]) -> bytes:
    """A checkpoint as bytes; tensors and plain values only."""
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    return buffer.getvalue()


def read(folder: Path) -> dict[str, Any]:
    """The checkpoint in ``folder``, loaded as data only.

    Raises:
        TrainingError: there is none, or it is damaged.
    """
    path = folder / STATE
    remedy = "start again without --resume, into another folder"
    if not path.is_file():
        raise TrainingError("there is no checkpoint to resume", where=str(path), remedy=remedy)
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
        raise TrainingError(
            f"the checkpoint cannot be read: {error}", where=str(path), remedy=remedy
        ) from error
    return state


def require_same_run(saved: Mapping[str, Any], asked: Mapping[str, Any], where: Path) -> None:
    """Refuse to resume a run under another configuration.

    Raises:
        TrainingError: it names the first setting that differs.
    """
    for name in [*asked, *saved]:
        if saved.get(name) != asked.get(name):
            raise TrainingError(
                f"the checkpoint was made with {name} = {saved.get(name)!r}, "
                f"this run has {asked.get(name)!r}",
                where=str(where),
                remedy="give the same options as before, or another --out",
            )
