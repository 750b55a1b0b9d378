"""Imports of a user's file are looked up in its folder and in the folders above."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType

_PACKAGE_PREFIX = "_dreamquant_beside_"
_FOLDERS_ABOVE = 4
# Modules that users' files have imported. Another file may have other modules of the same names.
_brought: set[str] = set()


@contextmanager
def beside(file: Path, *, anew: bool) -> Iterator[None]:
    """Let ``import`` search the folder of ``file`` first, and the folders above it last.

    The folders above hide no installed package.

    Args:
        file: the file that imports.
        anew: forget the modules that earlier files have imported, because names may repeat.
    """
    if anew:
        for name in _brought:
            sys.modules.pop(name, None)
        _brought.clear()
        importlib.invalidate_caches()
    before, written = set(sys.modules), sys.dont_write_bytecode
    folder = file.resolve().parent
    above = _Above(folder)
    sys.path.insert(0, str(folder))
    sys.meta_path.append(above)
    sys.dont_write_bytecode = True
    try:
        yield
    finally:
        sys.dont_write_bytecode = written
        sys.meta_path.remove(above)
        sys.path.remove(str(folder))
        _brought.update(n for n in set(sys.modules) - before if _lies_in(n, above.used))


def package_of(file: Path) -> str:
    """The package that relative imports in ``file`` start from. Call it inside ``beside``.

    It consists of the enclosing folders that have an ``__init__.py``. Without such a
    folder, the file's own folder becomes a package.
    """
    folder = file.resolve().parent
    parts: list[str] = []
    while (folder / "__init__.py").is_file():
        parts.insert(0, folder.name)
        folder = folder.parent
    if parts:
        importlib.import_module(".".join(parts))
        return ".".join(parts)
    name = _PACKAGE_PREFIX + sha256(str(folder).encode()).hexdigest()[:16]
    package = ModuleType(name)
    package.__path__ = [str(folder)]
    sys.modules[name] = package
    return name


class _Above:
    """Finds modules in the folders above a file, nearest first, after all other finders failed.

    Attributes:
        used: the file's folder, and the folders above in which a module was found.
    """

    def __init__(self, folder: Path) -> None:
        self._above = list(folder.parents)[:_FOLDERS_ABOVE]
        self.used = {folder}

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """See :class:`importlib.abc.MetaPathFinder`. A submodule is found by its package."""
        if path is not None:
            return None
        for root in self._above:
            # A folder without __init__.py may be a package too, but only if it contains code.
            if (root / f"{name}.py").is_file() or any((root / name).glob("*.py")):
                self.used.add(root)
                return PathFinder.find_spec(name, [str(root)])
        return None


def _lies_in(name: str, folders: set[Path]) -> bool:
    module = sys.modules.get(name)
    file = getattr(module, "__file__", None)
    places = [file] if file else list(getattr(module, "__path__", ()))
    resolved = [Path(place).resolve() for place in places]
    return any(
        place.is_relative_to(folder) and "site-packages" not in place.parts
        for place in resolved
        for folder in folders
    )
