"""One run at a time in a result folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from dreamquant.errors import ResultError
from dreamquant.results.files import make_folder, remove_temporaries, writing

if TYPE_CHECKING:
    from filelock import BaseFileLock

LOCK = ".lock"


@contextmanager
def alone_in(folder: Path | None) -> Iterator[None]:
    """Lock a result folder, so that no other run writes there.

    The operating system releases the lock when the process ends, even if it is killed. Files that
    an earlier run left half-written are removed.

    Args:
        folder: created if it is missing, and removed again if it stays empty; ``None`` locks
            nothing.

    Raises:
        ResultError: another run uses the folder, or it cannot be written.
    """
    if folder is None:
        yield
        return
    was_there = folder.exists()
    make_folder(folder)
    lock = _acquired(folder)
    try:
        remove_temporaries(folder)
        yield
    finally:
        # Before the release, so that no other lock is removed. Windows does not remove open files;
        # there the lock removes its file itself.
        if os.name == "posix":
            (folder / LOCK).unlink(missing_ok=True)
        lock.release()
        if not was_there and not any(folder.iterdir()):
            folder.rmdir()


def _acquired(folder: Path) -> BaseFileLock:
    # Imported here: the import takes a tenth of a second, which runs without a folder do not need.
    from filelock import FileLock, Timeout

    lock = FileLock(folder / LOCK)
    with writing(folder / LOCK):
        try:
            lock.acquire(timeout=0)
        except Timeout as error:
            raise ResultError(
                f"another run is using {folder}",
                where="--out",
                remedy="wait until it ends, stop it, or give another folder",
            ) from error
    return lock
