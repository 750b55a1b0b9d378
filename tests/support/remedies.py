"""Every error of the package, read from its source, and whether its remedy was tried."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import tiny
from dreamquant import Result, errors, quantize
from dreamquant.cli import main as cli
from dreamquant.errors import DreamQuantError
from tiny_runs import tiny_network

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "dreamquant"
ERRORS = {name for name in vars(errors) if name.endswith("Error")}


class Site(NamedTuple):
    """A place that makes an error.

    Attributes:
        module: path within the package.
        function: that it stands in.
        lines: of its call, the last one excluded.
        what: the message's texts between what is filled in.
        remedy: likewise; none where the error has no remedy of its own.
    """

    module: str
    function: str
    lines: range
    what: tuple[str, ...]
    remedy: tuple[str, ...]

    @property
    def name(self) -> str:
        """Module, function and how the message begins: the same while none of them changes."""
        return f"{self.place}: {self.message[:60]}"

    @property
    def place(self) -> str:
        """Module and function."""
        return f"{self.module}:{self.function}"

    @property
    def message(self) -> str:
        """What it says, with dots for what is filled in."""
        return " … ".join(self.what)


@cache
def sites() -> tuple[Site, ...]:
    """All of them, file by file."""
    files = {path: ast.parse(path.read_text()) for path in sorted(SOURCE.rglob("*.py"))}
    given: dict[str, int] = {}
    for tree in files.values():
        given |= _given_remedies(tree)
    return tuple(
        site
        for path, tree in files.items()
        for site in _Reader(str(path.relative_to(SOURCE)), tree, given).sites()
    )


def _given_remedies(tree: ast.Module) -> dict[str, int]:
    """Functions that are given a remedy, and its position."""
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and node.name != "__init__":
            names = [each.arg for each in node.args.args if each.arg != "self"]
            if "remedy" in names:
                found[node.name] = names.index("remedy")
    return found


@cache
def named(name: str) -> Site:
    """The one site that a name means: ``module:function``, and words of what it says after ": "."""
    place, _, words = name.partition(": ")
    there = [site for site in sites() if site.place == place]
    found = [site for site in there if site.message.strip() == words.strip() != ""] or [
        site for site in there if words in site.message or words in " … ".join(site.remedy)
    ]
    assert len(found) == 1, f"{name!r} names {[site.name for site in found] or 'no error'}"
    return found[0]


class _Reader:
    """The errors of one file.

    What makes an error is a call of an error's class, or of a function that is given the remedy.
    Such a function is not counted itself.
    """

    def __init__(self, module: str, tree: ast.Module, given: dict[str, int]) -> None:
        self.module, self.tree, self.given = module, tree, given
        self.constants = {
            target.id: node.value
            for node in tree.body
            if isinstance(node, ast.Assign)
            for target in node.targets
            if isinstance(target, ast.Name)
        }

    def sites(self) -> Iterator[Site]:
        """In the order of the file."""
        return self._in(self.tree, "")

    def _in(self, node: ast.AST, function: str) -> Iterator[Site]:
        for child in ast.iter_child_nodes(node):
            inside = child.name if isinstance(child, ast.FunctionDef) else function
            if isinstance(child, ast.Call) and function not in self.given:
                yield from self._site(child, function)
            yield from self._in(child, inside)

    def _site(self, call: ast.Call, function: str) -> Iterator[Site]:
        words = {word.arg: word.value for word in call.keywords}
        name = call.func.attr if isinstance(call.func, ast.Attribute) else ""
        name = call.func.id if isinstance(call.func, ast.Name) else name
        if name in self.given and len(call.args) > self.given[name]:
            words["remedy"] = call.args[self.given[name]]
        if name in ERRORS or name in self.given or "remedy" in words:
            assert call.end_lineno is not None
            lines = range(call.lineno, call.end_lineno + 1)
            what = tuple(text for each in call.args for text in self._texts(each))
            remedy = self._texts(words["remedy"]) if "remedy" in words else ()
            yield Site(self.module, function, lines, what, remedy)

    def _texts(self, value: ast.AST) -> tuple[str, ...]:
        found: list[str] = []
        for node in ast.walk(value):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
            elif isinstance(node, ast.Name) and node.id in self.constants:
                found += self._texts(self.constants[node.id])
        return tuple(text for text in found if text.strip())


# ------------------------------------------------------------------------------ trying them


class Trial(NamedTuple):
    """An error, and what its remedy advises.

    Attributes:
        site: see :func:`named`.
        broken: what raises it; both are given an empty folder.
        says: words of the remedy that is tried.
        mended: the same with the remedy; it raises nothing.
    """

    site: str
    broken: Callable[[Path], object]
    says: str
    mended: Callable[[Path], object]

    def run(self, folder: Path) -> None:
        """Raise the error, then do what it advises."""
        with advises(self.site, self.says):
            self.broken(folder)
        self.mended(folder)


@contextmanager
def advises(site: str, says: str) -> Iterator[list[DreamQuantError]]:
    """What stands inside ends in the error of a site, whose remedy has the words ``says``.

    A test that uses it goes on to do what the remedy advises. It is given the errors.
    """
    found: list[DreamQuantError] = []
    made: list[tuple[set[str], DreamQuantError]] = []
    usual = DreamQuantError.__init__

    def remembered(error: DreamQuantError, *args: Any, **words: Any) -> None:
        usual(error, *args, **words)
        made.append((_makers(), error))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DreamQuantError, "__init__", remembered)
        with pytest.raises((DreamQuantError, SystemExit)):
            yield found
    found += [error for names, error in made if named(site).name in names]
    remedies = [error.remedy for error in found]
    assert says
    assert remedies, f"{site} was not raised, but {[sorted(names) for names, _ in made]}"
    assert any(says in remedy for remedy in remedies), remedies


def _makers() -> set[str]:
    """The sites whose calls are running now."""
    frame = sys._getframe(2)
    found: set[str] = set()
    while frame is not None:
        path = Path(frame.f_code.co_filename)
        if path.is_relative_to(SOURCE):
            module = str(path.relative_to(SOURCE))
            found |= {
                site.name
                for site in sites()
                if site.module == module and frame.f_lineno in site.lines
            }
        frame = frame.f_back  # type: ignore[assignment]
    return found


def tried() -> list[str]:
    """The sites that tests name: the first argument of every ``Trial`` and ``advises``."""
    calls = (
        node
        for file in sorted((ROOT / "tests").rglob("test_*.py"))
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.args
    )
    return [
        call.args[0].value
        for call in calls
        if call.func.id in ("Trial", "advises")  # type: ignore[attr-defined]
        and isinstance(call.args[0], ast.Constant)
        and isinstance(call.args[0].value, str)
    ]


def command(*arguments: object) -> None:
    """A command line that ends well, or is refused."""
    try:
        cli.main([str(each) for each in arguments])
    except SystemExit as ended:
        if ended.code:
            raise


def quantized(folder: Path, **options: Any) -> Result:
    """A run of a moment on the tiny network; ``out`` is the name of a folder in ``folder``."""
    if "out" in options:
        options["out"] = folder / options["out"]
    network, bits = options.pop("network", None), options.pop("bits", "w8a8")
    given: dict[str, Any] = {
        **{"method": "squant", "device": "cpu", "quiet": True, "input": tiny.INPUT},
        **options,
    }
    return quantize(tiny_network() if network is None else network, bits, **given)


def words_of_remedies() -> str:
    """All that remedies say, in one."""
    return " ".join(re.sub(r"\s+", " ", text) for site in sites() for text in site.remedy)
