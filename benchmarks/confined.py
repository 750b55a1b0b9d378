"""Checks what Python does while it reads a file that may be malicious."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_CHANGES = (
    *("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.truncate"),
    *("os.chmod", "os.chown", "shutil.rmtree", "shutil.move", "shutil.copyfile"),
)
_RUNS = (
    *("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork"),
    *("socket.connect", "socket.getaddrinfo", "urllib.Request", "webbrowser.open"),
    "pickle.find_class",
)
_PLACES: list[Path] = []  # where writing is allowed now; empty while nothing is watched
_SEEN: list[str] = []


@contextmanager
def confined(folder: Path) -> Iterator[None]:
    """Nothing inside writes outside of ``folder``, runs code from it, or starts a program.

    Raises:
        AssertionError: something did.
    """
    _PLACES.append(folder.resolve())
    try:
        yield
    finally:
        _PLACES.pop()
    if _SEEN:
        raise AssertionError(", ".join(_drained()))


def _drained() -> list[str]:
    seen = list(_SEEN)
    _SEEN.clear()
    return seen


def _watch(event: str, arguments: tuple[object, ...]) -> None:
    if not _PLACES:
        return
    if event == "open":
        path, _, flags = arguments
        if isinstance(flags, int) and flags & _WRITES:
            _judge(event, path)
    elif event in _CHANGES:
        for path in arguments:
            _judge(event, path)
    elif event in _RUNS or (event == "exec" and _is_inside(_file_of(arguments[0]))):
        _SEEN.append(f"{event} {arguments}")


def _file_of(code: object) -> str:
    return str(getattr(code, "co_filename", os.devnull))


def _judge(event: str, path: object) -> None:
    if isinstance(path, str | bytes) and os.fsdecode(path) != os.devnull and not _is_inside(path):
        _SEEN.append(f"{event} {path!r}")


def _is_inside(path: str | bytes) -> bool:
    return Path(os.path.realpath(os.fsdecode(path))).is_relative_to(_PLACES[-1])


sys.addaudithook(_watch)
