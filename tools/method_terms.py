"""Writes what methods minimise into their pages, from the code: python tools/method_terms.py.

A block between two marks is replaced; ``tests/test_documentation.py`` fails where one is stale.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dreamquant.cli.method_pages import call
from dreamquant.methods import ADD_ONS, METHODS
from dreamquant.methods.method import AddOn, Method, Preset
from dreamquant.recovery.anytime import Anytime, Stage
from dreamquant.recovery.norms import ReestimateNorms
from dreamquant.recovery.part import Recovery
from dreamquant.recovery.train import Train
from dreamquant.synthesis.source import Source
from dreamquant.terms.contract import Terms, weighted

DOCS = Path(__file__).resolve().parents[1] / "docs"
BEGIN, END = "<!-- begin: written by tools/method_terms.py -->", "<!-- end -->"
HEAD = ("| method | images, and what they minimise | recovery | targets |", "|---|---|---|---|")


def block(names: list[str]) -> str:
    """The table of these methods and add-ons, with its marks."""
    return "\n".join([BEGIN, "", *HEAD, *(_row(name) for name in names), "", END])


def replaced(page: str, names: list[str]) -> str:
    """The page with its block written anew.

    Raises:
        ValueError: it has no block.
    """
    before, rest = page.split(BEGIN)
    _, after = rest.split(END)
    return before + block(names) + after


def pages() -> Iterator[tuple[Path, list[str]]]:
    """Each page, and the methods in its block."""
    yield DOCS / "methods.md", list(METHODS)
    for name in METHODS:
        yield DOCS / "methods" / f"{name}.md", [name]


def _row(name: str) -> str:
    cells = _cells(ADD_ONS.get(name, METHODS[name]))
    shown = f"+{name}" if name in ADD_ONS else name
    return f"| {' | '.join((shown, *cells))} |"


def _cells(method: Method | AddOn) -> tuple[str, str, str]:
    """Images, recovery, and what is asked of images."""
    if isinstance(method, AddOn):
        views = " and ".join(f"the same on {call(view)}" for view in method.views)
        student = _sum(method.student_terms) if method.student_terms else views
        student += "".join(f", all through {call(each)}" for each in method.through)
        if method.training:
            student = f"in place of the method's: {_training(method.training)}"
        targets = "" if method.targets is None else call(method.targets)
        dreams = call(method.stopping) if method.stopping else _sum(method.generator_terms)
        return dreams, student or "–", targets or "–"
    joined = method.with_numbers(Preset()).joined()
    images = joined.images
    asked = [getattr(images, name, None) for name in ("targets", "condition")]
    told = ", ".join(call(one) for one in asked if one is not None)
    parts = ", then ".join(_recovery(part) for part in joined.recovery if _acts(part))
    return _images(images), parts, told or "–"


def _training(numbers: Mapping[str, Any]) -> str:
    terms = [_sum(numbers["terms"])] if "terms" in numbers else []
    others = (f"{name} {call(value)}" for name, value in numbers.items() if name != "terms")
    return ", ".join([*terms, *others])


def _images(images: Source | None) -> str:
    if images is None:
        return "none"
    return f"{type(images).__name__}: {_sum(images.terms)}"


def _acts(part: Recovery) -> bool:
    return not (isinstance(part, ReestimateNorms) and part.batches == 0)


def _recovery(part: Recovery) -> str:
    if isinstance(part, Anytime):
        return "; ".join(f"{stage.name}: {_names(stage)}" for stage in part.stages)
    return f"Train: {_sum(part.terms)}" if isinstance(part, Train) else call(part)


def _names(stage: Stage) -> str:
    return ", ".join(type(part).__name__ for part in stage.parts)


def _sum(terms: Terms) -> str:
    return " + ".join(f"{term.weight:g} × {call(term.term)}" for term in weighted(terms)) or "–"


def main() -> None:
    """Write all blocks."""
    for path, names in pages():
        path.write_text(replaced(path.read_text(), names))


if __name__ == "__main__":
    main()
