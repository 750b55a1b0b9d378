"""The end of a command: errors with a remedy, and stopped runs with the command to resume."""

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

# Files that a stopped run or sweep leaves in its folder. The names are repeated here, because the
# modules that write them import torch, and that import may have been interrupted.
_STATE = Path("checkpoint", "state.pt")
_DISTILLED = Path("distilled")
_SWEEP = Path("sweep.json")
_STOPPED, _USAGE = 130, 2
_UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)


def note(text: str) -> None:
    """Print a line on standard error."""
    print(text, file=sys.stderr)


class _StoppedRun(KeyboardInterrupt):
    """A stopped run can be resumed with the same command and the options ``more``."""

    def __init__(self, *more: str) -> None:
        super().__init__()
        self.more = more


@contextmanager
def resumable(out: Path, *more: str) -> Iterator[None]:
    """A run inside can be resumed after a stop if ``out`` contains a checkpoint.

    Args:
        out: the result folder.
        more: additional options for the command that resumes.
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
    if os.environ.get("RANK", "0") == "0":  # with several processes, only the first one prints
        note("\nstopped: " + "\n".join(lines))
    raise SystemExit(_STOPPED)


def _go_on(given: Sequence[str], more: Sequence[str]) -> str:
    command, *rest = given
    missing = [option for option in more if option not in rest]
    return "resume with: " + shlex.join(["dreamquant", command, *missing, *rest])


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
