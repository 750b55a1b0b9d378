"""Runs on full disks: the disk is full at the first write, then at the second, and so on."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from unittest.mock import patch

from dreamquant.errors import DreamQuantError
from kills import require_equal, require_whole

Job = Callable[[Path], object]
Disk = Callable[[int], AbstractContextManager[object]]


def survive(job: Job, out: Path, whole: Path, disk: Disk) -> list[str]:
    """Resume a run on larger and larger disks until it can finish.

    Args:
        job: quantizes into a folder, or goes on with what is there.
        out: the result folder.
        whole: the result of a run that had room enough.
        disk: the context of the n-th attempt.

    Returns:
        What was said of every attempt that failed.

    Raises:
        AssertionError: a file was not whole, or the result differs.
    """
    said: list[str] = []
    while True:
        with disk(len(said)):
            message = _refusal(lambda: job(out))
        require_whole(out, whole)
        if message is None:
            require_equal(out, whole)
            return said
        said.append(message)


def _refusal(job: Callable[[], object]) -> str | None:
    # A report that cannot be written is a warning: all else is there.
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        try:
            job()
        except (DreamQuantError, RuntimeWarning) as error:
            return str(error)
    return None


@contextmanager
def full_after(writes: int) -> Iterator[None]:
    """Every write into a result folder but the first so many fails."""
    done, sync = 0, os.fsync

    def fsync(descriptor: int) -> None:
        nonlocal done
        done += 1
        if done > writes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(descriptor)

    with patch.object(os, "fsync", fsync):
        yield


@contextmanager
def no_file_above(size: int) -> Iterator[None]:
    """The operating system writes no file of more bytes, whichever thread or library asks it to."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextmanager
def small_disk(folder: Path) -> Iterator[Callable[[int], None]]:
    """A separate file system at ``folder``; yields a function that sets its size in KiB.

    Raises:
        CalledProcessError: this user may not mount one.
    """
    folder.mkdir(parents=True)
    _mount("-t", "tmpfs", "-o", "size=16k", "tmpfs", str(folder))
    try:
        yield lambda size: _mount("-o", f"remount,size={size}k", str(folder))
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def _mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True, capture_output=True)
