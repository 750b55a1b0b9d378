"""Prints the table of methods and the page of one method."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

from dreamquant.cli.tables import print_indented, print_pairs, print_table, print_text
from dreamquant.methods.method import Method, Paper, Preset
from dreamquant.recovery.anytime import Stage
from dreamquant.terms.contract import Terms, Weighted, weighted

_SYMBOLS = {
    "z_p": "z_p: the teacher's logits",
    "z_q": "z_q: the student's logits",
    "y)": "y: the target label",
    "H'": "H': entropy of softmax(z_p - z_q), normalised to 0 … 1",
    "T²": "T: temperature",
    "μ": "μ, σ²: mean and variance of a batch norm's input; with a hat: of the batch",
}


def methods_table(methods: Iterable[Method]) -> None:
    """Print all methods, one per line."""
    rows, joining = [], []
    for method in methods:
        # A published add-on is listed with its base method, but described by itself.
        paper, summary = method.paper, method.summary
        for add_on in method.add_ons:
            paper, summary = add_on.paper, add_on.summary
            joining.append(add_on.name)
        rows.append((method.name, f"{paper.authors}, {paper.venue}", summary))
    print_table(("method", "paper", "what it does"), rows)
    if joining:
        print_text(
            f"\n{', '.join(joining)} can be added to other methods, for example --method "
            f"adadfq+{joining[0]}."
        )
    print_text(
        "`dreamquant methods NAME` shows the parts, losses, schedules and provenance of one."
    )


def method_page(method: Method) -> None:
    """Print one method like in a paper: images, losses, schedules and their origin."""
    print_text(method.name, "bold")
    _print_paper(method.summary, method.paper)
    for add_on in method.add_ons:
        _print_paper(add_on.summary, add_on.paper)
    joined = method.with_numbers(Preset()).joined()
    _print_taps(joined)
    if joined.images is None:
        print_text("Images: none\n", "bold")
    else:
        _print_part("Images:", joined.images)
    for place, part in enumerate(joined.recovery, 1):
        _print_part(f"Recovery, part {place}:", part)
    _print_symbols(joined)
    _print_presets(method.presets)


def _print_paper(summary: str, paper: Paper) -> None:
    print_pairs(
        {
            "idea": summary,
            "paper": f"{paper.authors}, {paper.title}, {paper.venue}",
            "confirmed": paper.confirmed,
            "ours": paper.ours,
        }
    )
    print_text()


def _print_taps(method: Method) -> None:
    print_pairs(
        {
            "reads of the teacher": call(method.teacher_taps or "its output"),
            "reads of the student": call(method.student_taps or "nothing"),
        }
    )
    print_text()


def _print_part(title: str, part: Any) -> None:
    print_text(f"{title} {type(part).__name__}", "bold")
    print_text((inspect.getdoc(type(part)) or "").partition("\n")[0])
    terms = getattr(part, "terms", ())
    if terms:
        print_text("minimises")
        _print_terms(terms)
    stages: Sequence[Stage] = getattr(part, "stages", ())
    apart = {"terms", "stages"}
    numbers = {
        each.name: getattr(part, each.name) for each in fields(part) if each.name not in apart
    }
    # Empty values are not shown; the number 0 is.
    print_pairs({name: call(value) for name, value in numbers.items() if value not in (None, ())})
    print_text()
    for stage in stages:
        for each in stage.parts:
            _print_part(f"Stage {stage.name!r}:", each)


def _print_terms(terms: Terms) -> None:
    sign = " "
    for term in weighted(terms):
        print_text(f"  {sign} {term.weight:g} × {call(term.term)}")
        print_indented(term.term.formula)
        sign = "+"


def _print_symbols(method: Method) -> None:
    parts = (method.images, *method.recovery)
    formulas = " ".join(
        term.term.formula for part in parts for term in weighted(getattr(part, "terms", ()))
    )
    used = [meaning for symbol, meaning in _SYMBOLS.items() if symbol in formulas]
    print_text("; ".join(used) + "\n", "dim")


def call(part: Any) -> str:
    """A part with its numbers, such as ``Band(lower=0.1, upper=0.8)``."""
    if isinstance(part, Weighted):
        return f"{part.weight:g} × {call(part.term)}"
    if isinstance(part, (list, tuple)):
        return ", ".join(call(each) for each in part) or "none"
    if not is_dataclass(part):
        return str(part)
    values = {field.name: getattr(part, field.name) for field in fields(part)}
    numbers = ", ".join(f"{name}={call(value)}" for name, value in values.items())
    return f"{type(part).__name__}({numbers})" if numbers else type(part).__name__


def _print_presets(presets: Mapping[str, Preset]) -> None:
    print_text("Presets and the values they change", "bold")
    print_pairs({name: "; ".join(_changes(preset)) for name, preset in presets.items()})


def _changes(preset: Preset) -> Iterable[str]:
    groups = {"images": preset.images, **preset.recovery, "scheme": preset.scheme}
    for name, numbers in groups.items():
        if numbers:
            shown = ", ".join(
                f"other {key}" if key == "stages" else f"{key} {_number(value)}"
                for key, value in numbers.items()
            )
            yield f"{name}: {shown}"


def _number(value: Any) -> str:
    """A changed value; a list of terms is shown as their sum."""
    if isinstance(value, (list, tuple)):
        return " + ".join(call(each) for each in value)
    return call(value)
