"""``FILE.py:NAME``: something from a user's own file, run from the very bytes that are hashed."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from dreamquant.errors import DreamQuantError
from dreamquant.networks.zoo import nearest, one_line

_MODULE_PREFIX = "_dreamquant_user_"


def names_user_file(text: str) -> bool:
    """Whether ``text`` has the form ``FILE.py:NAME``."""
    # From the right: a drive letter has a colon too.
    file, _, name = text.rpartition(":")
    return file.endswith(".py") and bool(name)


def read_user_file(text: str, error: type[DreamQuantError]) -> UserFile:
    """The file that ``FILE.py:NAME`` names, read but not yet run.

    Args:
        text: of that form.
        error: what to raise for everything that can go wrong with it.
    """
    file, _, name = text.rpartition(":")
    path = Path(file)
    try:
        return UserFile(path, name, path.read_bytes(), error)
    except OSError as reason:
        raise error(
            f"the file cannot be read: {reason.strerror}", where=file, remedy="check the path"
        ) from reason


@dataclass(frozen=True)
class UserFile:
    """A user's file as read once: what is hashed is what runs.

    Attributes:
        path: of the file.
        name: of the attribute wanted from it.
        source: its bytes.
        error: raised for everything that can go wrong with it.
    """

    path: Path
    name: str
    source: bytes
    error: type[DreamQuantError]

    @property
    def sha256(self) -> str:
        """Of the source, in hexadecimal."""
        return hashlib.sha256(self.source).hexdigest()

    def attribute(self) -> Any:
        """Run the file and return what it calls ``name``."""
        namespace = self._imported()
        if not hasattr(namespace, self.name):
            known = [name for name in vars(namespace) if not name.startswith("_")]
            raise self.error(
                f"{self.path.name} has no {self.name!r}{nearest(self.name, known)}",
                where=str(self.path),
                remedy=f"it has {', '.join(known) or 'nothing'}",
            )
        return getattr(namespace, self.name)

    def failed(self, what: str, error: BaseException) -> DreamQuantError:
        """The error to raise when the file's code raised ``error``, with its line."""
        frames = traceback.extract_tb(error.__traceback__)
        lines = [frame.lineno for frame in frames if frame.filename == str(self.path)]
        beside = f"to import modules beside it, set PYTHONPATH={self.path.parent}"
        return self.error(
            f"{self.path.name} {what}: {type(error).__name__}: {one_line(error)}",
            where=f"{self.path}:{lines[-1]}" if lines else str(self.path),
            remedy=beside if isinstance(error, ModuleNotFoundError) else "mend the file there",
        )

    def _imported(self) -> ModuleType:
        path = str(self.path)
        identity = hashlib.sha256(path.encode() + b"\0" + self.source).hexdigest()
        spec = importlib.util.spec_from_file_location(_MODULE_PREFIX + identity[:16], path)
        assert spec is not None  # None only for a suffix Python does not import
        module = importlib.util.module_from_spec(spec)
        # Dataclasses and pickle look their module up by name.
        sys.modules[spec.name] = module
        try:
            # Not through the loader: it may run a cached compilation of an older version.
            exec(compile(self.source, path, "exec"), module.__dict__)
        except (Exception, SystemExit) as error:  # the user's code may raise anything
            del sys.modules[spec.name]
            raise self.failed("cannot be imported", error) from error
        return module
