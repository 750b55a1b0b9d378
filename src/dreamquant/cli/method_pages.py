"""The table of methods and the page of one, on standard output."""

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
    "y)": "y: the label asked for",
    "H'": "H': entropy of softmax(z_p - z_q), normalised to 0 … 1",
    "T²": "T: temperature",
    "μ": "μ, σ²: mean and variance at a batch norm's input, with a hat those of the batch",
}


def methods_table(methods: Iterable[Method]) -> None:
    """All methods, a line each."""
    rows, joining = [], []
    for method in methods:
        # A published add-on is listed on its base; what it does is the news.
        paper, summary = method.paper, method.summary
        for add_on in method.add_ons:
            paper, summary = add_on.paper, add_on.summary
            joining.append(add_on.name)
        rows.append((method.name, f"{paper.authors}, {paper.venue}", summary))
    print_table(("method", "paper", "what it does"), rows)
    if joining:
        print_text(
            f"\n{', '.join(joining)} can join other methods, as in --method adadfq+{joining[0]}."
        )
    print_text(
        "`dreamquant methods NAME` shows the parts, losses, schedules and provenance of one."
    )


def method_page(method: Method) -> None:
    """One method as a paper would have it: images, losses, schedules, and where they come from."""
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
    # What is absent has nothing to say; a number that is 0 has.
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
    """A part with its numbers, as ``Band(lower=0.1, upper=0.8)``."""
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
    print_text("Presets, by what they change", "bold")
    print_pairs({name: "; ".join(_changes(preset)) for name, preset in presets.items()})


def _changes(preset: Preset) -> Iterable[str]:
    groups = {"images": preset.images, **preset.recovery, "scheme": preset.scheme}
    for name, numbers in groups.items():
        if numbers:
            shown = ", ".join(
                f"{key} of its own" if key == "stages" else f"{key} {_number(value)}"
                for key, value in numbers.items()
            )
            yield f"{name}: {shown}"


def _number(value: Any) -> str:
    """A changed number; a list of terms reads as their sum."""
    if isinstance(value, (list, tuple)):
        return " + ".join(call(each) for each in value)
    return call(value)
