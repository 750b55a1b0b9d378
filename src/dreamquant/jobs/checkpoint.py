"""Checkpoints: a killed run continues from the last one, bit for bit."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from dreamquant.errors import TrainingError
from dreamquant.networks.archives import require_no_bomb

STATE = "state.pt"
_PARTS = {"configuration", "record", "run"}
# The state of a random generator fits only its own kind of device.
_REMEDIES = {"device": "resume on a machine with this device, or start again with another --out"}


def encode(state: Mapping[str, Any]) -> bytes:
    """A checkpoint as bytes; tensors and plain values only."""
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    return buffer.getvalue()


def read(folder: Path) -> dict[str, Any]:
    """The checkpoint in ``folder``, loaded as data only.

    Raises:
        TrainingError: the checkpoint is missing or damaged.
    """
    path = folder / STATE
    if not path.is_file():
        raise _unusable("there is no checkpoint to resume", path)
    try:
        require_no_bomb(path)
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise _unusable(f"the checkpoint cannot be read: {error.strerror}", path) from error
    # For a damaged file torch.load may raise almost any exception; for a file with code its message
    # advises to run the code.
    except Exception as error:
        raise _unusable(
            "the checkpoint cannot be read: it is damaged, or holds more than plain data", path
        ) from error
    if not isinstance(state, dict) or not state.keys() >= _PARTS:
        raise _unusable("the checkpoint cannot be read: it holds something else", path)
    return state


@contextmanager
def fitting(folder: Path) -> Iterator[None]:
    """Turn the failure of a checkpoint that does not fit into an error that names it.

    Raises:
        TrainingError: the checkpoint in ``folder`` does not fit the run.
    """
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise _unusable(
            f"the checkpoint does not fit this run: {reason}", folder / STATE
        ) from error


def _unusable(what: str, path: Path) -> TrainingError:
    return TrainingError(
        what, where=str(path), remedy="start again without --resume, into another folder"
    )


def require_same_run(
    saved: Mapping[str, Any], asked: Mapping[str, Any], where: Path, section: str = ""
) -> None:
    """Refuse to resume a run with other settings.

    Raises:
        TrainingError: it names the first setting that differs.
    """
    for name in [*asked, *saved]:
        was, now = saved.get(name), asked.get(name)
        if isinstance(was, Mapping) and isinstance(now, Mapping):
            require_same_run(was, now, where, f"{section}{name}.")
        elif was != now:
            raise TrainingError(
                f"the checkpoint was made with {section}{name} = {was!r}, this run has {now!r}",
                where=str(where),
                remedy=_REMEDIES.get(name, "give the same options as before, or another --out"),
            )
