"""``FILE.py:NAME``: an object from a user's file. The bytes that are hashed also run."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import re
import sys
import traceback
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from dreamquant.errors import DreamQuantError
from dreamquant.networks.beside import beside, package_of
from dreamquant.networks.zoo import nearest, one_line

_MODULE_PREFIX = "_dreamquant_user_"
# The greedy path keeps the colon of a drive letter; literal arguments are in parentheses.
_FORM = re.compile(r"(?P<file>.+\.py):(?P<name>[^\W\d]\w*)(?P<arguments>\(.*\))?", re.DOTALL)


def names_user_file(text: str) -> bool:
    """Whether ``text`` has the form ``FILE.py:NAME`` or ``FILE.py:NAME(argument, key=value)``."""
    return _FORM.fullmatch(text) is not None


def read_user_file(text: str, error: type[DreamQuantError]) -> UserFile:
    """Read the file that ``FILE.py:NAME`` names, without running it.

    Args:
        text: a name of that form.
        error: class of the error to raise for any failure.
    """
    form = _FORM.fullmatch(text)
    assert form is not None  # names_user_file has checked it
    path = Path(form["file"])
    try:
        source = path.read_bytes()
    except OSError as reason:
        raise error(
            f"the file cannot be read: {reason.strerror}",
            where=str(path),
            remedy="check the path",
        ) from reason
    positional, named = _literals(form["arguments"] or "()", text, error)
    return UserFile(path, form["name"], source, error, positional, named)


def _literals(
    arguments: str, text: str, error: type[DreamQuantError]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Parse literal arguments as data; no code in them runs."""
    try:
        call = ast.parse(f"_{arguments}", mode="eval").body
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):
            raise ValueError("it is not a call")
        positional = tuple(ast.literal_eval(value) for value in call.args)
        named = {word.arg: ast.literal_eval(word.value) for word in call.keywords if word.arg}
        if len(named) < len(call.keywords):
            raise ValueError("it uses **")
    except (ValueError, SyntaxError, MemoryError, RecursionError) as reason:
        raise error(
            f"the arguments {arguments} are not literals: {one_line(reason)}",
            where=text,
            remedy="give numbers, strings or lists, such as FILE.py:Net(width=0.5)",
        ) from reason
    return positional, named


@dataclass(frozen=True)
class UserFile:
    """A user's file that is read once, so that the hashed bytes are the bytes that run.

    Attributes:
        path: path of the file.
        name: name of the attribute that is needed.
        source: its bytes.
        error: class of the error that is raised for any failure.
        positional: positional arguments for a call of the attribute.
        named: keyword arguments for that call.
    """

    path: Path
    name: str
    source: bytes
    error: type[DreamQuantError]
    positional: tuple[Any, ...] = ()
    named: dict[str, Any] = field(default_factory=dict)

    @property
    def sha256(self) -> str:
        """SHA-256 of the source, in hexadecimal."""
        return hashlib.sha256(self.source).hexdigest()

    def attribute(self) -> Any:
        """Run the file and return its attribute ``name``."""
        return self.value_and_rest()[0]

    def value_and_rest(self) -> tuple[Any, dict[str, Any]]:
        """Run the file and return its attribute ``name`` and all its attributes."""
        namespace = self._imported()
        if not hasattr(namespace, self.name):
            known = [
                name
                for name, value in vars(namespace).items()
                if not name.startswith("_") and not isinstance(value, ModuleType)
            ]
            raise self.error(
                f"{self.path.name} has no {self.name!r}{nearest(self.name, known)}",
                where=str(self.path),
                remedy=f"it has {', '.join(known) or 'nothing'}",
            )
        return getattr(namespace, self.name), vars(namespace)

    def failed(self, what: str, error: BaseException, remedy: str = "") -> DreamQuantError:
        """The error to raise when the file's code has raised ``error``; it names the line."""
        frames = traceback.extract_tb(error.__traceback__)
        lines = [frame.lineno for frame in frames if frame.filename == str(self.path)]
        missing = f"install {getattr(error, 'name', None)}, or put its file beside this one"
        usual = missing if isinstance(error, ModuleNotFoundError) else "correct the file there"
        return self.error(
            f"{self.path.name} {what}: {type(error).__name__}: {one_line(error)}",
            where=f"{self.path}:{lines[-1]}" if lines else str(self.path),
            remedy=remedy or usual,
        )

    def _imported(self) -> ModuleType:
        path = str(self.path)
        identity = hashlib.sha256(path.encode() + b"\0" + self.source).hexdigest()
        spec = importlib.util.spec_from_file_location(_MODULE_PREFIX + identity[:16], path)
        assert spec is not None  # None only for a suffix that Python does not import
        module = importlib.util.module_from_spec(spec)
        # Dataclasses and pickle look up their module by name.
        sys.modules[spec.name] = module
        try:
            with beside(self.path, anew=True):
                # Relative imports use the package, not the name of the module.
                module.__package__ = package_of(self.path)
                # The loader is not used, because it may run cached bytecode of an older version.
                exec(compile(self.source, path, "exec"), module.__dict__)
        except (Exception, SystemExit) as error:  # the user's code may raise anything
            del sys.modules[spec.name]
            raise self.failed("cannot be imported", error) from error
        return module
