"""Every remedy that an error of the package prints, read from its source."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "dreamquant"


class Site(NamedTuple):
    """A place that makes an error with a remedy.

    Attributes:
        module: path within the package.
        function: that it stands in.
        what: the message's texts between what is filled in.
        remedy: likewise.
    """

    module: str
    function: str
    what: tuple[str, ...]
    remedy: tuple[str, ...]

    @property
    def name(self) -> str:
        """Module, function and how the message begins: the same while none of them changes."""
        return f"{self.module}:{self.function}: {' … '.join(self.what)[:50]}"


def sites() -> Iterator[Site]:
    """All of them, file by file."""
    for path in sorted(SOURCE.rglob("*.py")):
        yield from _in(ast.parse(path.read_text()), str(path.relative_to(SOURCE)), "")


def _in(node: ast.AST, module: str, function: str) -> Iterator[Site]:
    for child in ast.iter_child_nodes(node):
        inside = child.name if isinstance(child, ast.FunctionDef) else function
        if isinstance(child, ast.Call):
            words = {word.arg: word.value for word in child.keywords}
            if "remedy" in words and child.args:
                yield Site(module, function, _texts(child.args[0]), _texts(words["remedy"]))
        yield from _in(child, module, inside)


def _texts(value: ast.AST) -> tuple[str, ...]:
    found = [
        node.value
        for node in ast.walk(value)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    return tuple(text for text in found if text.strip())


def texts_of_tests() -> str:
    """All tests in one, strings as they are read, escapes of patterns taken away."""
    files = [*(ROOT / "tests").rglob("*.py"), *(ROOT / "benchmarks").glob("*.py")]
    constants = (
        node.value
        for file in files
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    )
    return "\n".join(re.sub(r"\\(.)", r"\1", text) for text in constants)


def shared(text: str, tests: str, *, words: int = 3) -> bool:
    """Whether so many words of ``text`` in a row stand in a test."""
    parts = text.split()
    length = min(words, len(parts))
    return any(" ".join(parts[i : i + length]) in tests for i in range(len(parts) - length + 1))
