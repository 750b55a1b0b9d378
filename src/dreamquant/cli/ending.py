"""How a command ends: errors with their remedy, and stopped runs with how to go on."""

from __future__ import annotations

import errno
import os
import shlex
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NoReturn

from cyclopts import App, CycloptsError, MissingArgumentError
from cyclopts.exceptions import UnusedCliTokensError

from dreamquant.errors import DreamQuantError, ResultError

# What a stopped run or sweep leaves in its folder. Named here too, because what writes it imports
# torch, which may be just what was interrupted.
_STATE = Path("checkpoint", "state.pt")
_DISTILLED = Path("distilled")
_SWEEP = Path("sweep.json")
_STOPPED, _USAGE = 130, 2
_UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)


def note(text: str) -> None:
    """A line on standard error."""
    print(text, file=sys.stderr)


class _StoppedRun(KeyboardInterrupt):
    """A run was stopped that can be resumed, by the same command and ``more`` options."""

    def __init__(self, *more: str) -> None:
        super().__init__()
        self.more = more


@contextmanager
def resumable(out: Path, *more: str) -> Iterator[None]:
    """What is stopped inside can be resumed, once ``out`` holds a checkpoint.

    Args:
        out: the result folder.
        more: options that the same command then needs.
    """
    try:
        yield
    except KeyboardInterrupt:
        if any((out / left).exists() for left in (_STATE, _DISTILLED, _SWEEP)):
            raise _StoppedRun(*more) from None
        raise


def run(app: App, given: Sequence[str]) -> None:
    """Run the command that ``given`` names; see :func:`dreamquant.cli.main`."""
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        _run(app, given)
    finally:
        signal.signal(signal.SIGTERM, before)


def _run(app: App, given: Sequence[str]) -> None:
    try:
        app(given, exit_on_error=False, print_error=False)
    except CycloptsError as error:
        _fail(_usage_error(error))
    except DreamQuantError as error:
        _fail(error)
    except OSError as error:
        if error.errno not in _UNWRITABLE:
            raise
        _fail(_unwritable(error))
    except _StoppedRun as stopped:
        _stop("the run is saved", _go_on(given, stopped.more))
    except KeyboardInterrupt:
        _stop("nothing was saved")


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def _fail(error: DreamQuantError) -> NoReturn:
    note(f"error: {error}")
    raise SystemExit(_USAGE) from error


def _stop(*lines: str) -> NoReturn:
    if os.environ.get("RANK", "0") == "0":  # of several processes, the first one tells
        note("\nstopped: " + "\n".join(lines))
    raise SystemExit(_STOPPED)


def _go_on(given: Sequence[str], more: Sequence[str]) -> str:
    command, *rest = given
    missing = [option for option in more if option not in rest]
    return "go on with: " + shlex.join(["dreamquant", command, *missing, *rest])


def _usage_error(error: CycloptsError) -> DreamQuantError:
    command = " ".join(("dreamquant", *(error.command_chain or ())))
    return DreamQuantError(
        _complaint(error), where=command, remedy=f"`{command} --help` shows what it takes"
    )


def _complaint(error: CycloptsError) -> str:
    if isinstance(error, MissingArgumentError) and error.argument is not None:
        lacks = "needs a value" if error.keyword else "is missing"
        return f"{error.keyword or error.argument.name} {lacks}"
    if isinstance(error, UnusedCliTokensError):
        return f"unexpected: {shlex.join(error.unused_tokens or ())}"
    return str(error)


def _unwritable(error: OSError) -> ResultError:
    return ResultError(
        f"cannot write: {error.strerror}",
        where=str(error.filename or "--out"),
        remedy="free some space, or give --out on another disk",
    )
