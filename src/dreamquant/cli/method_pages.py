"""The table of methods and the page of one, on standard output."""

from __future__ import annotations

import inspect
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import fields

from dreamquant.cli.tables import print_indented, print_pairs, print_table, print_text
from dreamquant.methods.method import Method, Paper, Preset, Terms
from dreamquant.methods.schedule import Schedule
from dreamquant.synthesis.targets import OneHot
from dreamquant.terms.contract import Term, Weighted

_INLINE = re.compile(r"``(.+?)``", re.DOTALL)
_DISPLAYED = re.compile(r"^``(.+?)``", re.DOTALL | re.MULTILINE)
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
            f"\n{', '.join(joining)} can join any method, as in --method adadfq+{joining[0]}."
        )
    print_text(
        "`dreamquant methods NAME` shows the terms, weights, schedules and provenance of one."
    )


def method_page(method: Method) -> None:
    """One method as a paper would have it: losses, schedules, and where they come from."""
    print_text(method.name, "bold")
    _print_paper(method.summary, method.paper)
    for add_on in method.add_ons:
        _print_paper(add_on.summary, add_on.paper)
    added = [term for add_on in method.add_ons for term in add_on.generator_terms]
    generator = _weighted([*method.generator_terms, *added])
    student = _weighted(method.student_terms)
    _print_terms("The generator minimises", generator)
    _print_terms("The student minimises", student)
    _print_symbols([*generator, *student])
    print_pairs(_images(method))
    print_text("\nPresets", "bold")
    _print_presets(method)


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


def _weighted(terms: Terms) -> list[Weighted]:
    return [term if isinstance(term, Weighted) else Weighted(1.0, term) for term in terms]


def _print_terms(title: str, terms: Iterable[Weighted]) -> None:
    print_text(title, "bold")
    sign = " "
    for weighted in terms:
        print_text(f"  {sign} {weighted.weight:g} × {_call(weighted.term)}")
        print_indented(_formula(weighted.term))
        sign = "+"
    print_text()


def _print_symbols(terms: Iterable[Weighted]) -> None:
    formulas = " ".join(_formula(weighted.term) for weighted in terms)
    used = [meaning for symbol, meaning in _SYMBOLS.items() if symbol in formulas]
    print_text("; ".join(used) + "\n", "dim")


def _call(part: object) -> str:
    """A part of a method with its numbers, as ``Band(lower=0.1, upper=0.8)``."""
    values = {field.name: getattr(part, field.name) for field in fields(part)}  # type: ignore[arg-type]
    numbers = ", ".join(f"{name}={value}" for name, value in values.items())
    return f"{type(part).__name__}({numbers})" if numbers else type(part).__name__


def _formula(term: Term) -> str:
    """The formula of a term by its documentation, or what that says in words."""
    text = inspect.getdoc(type(term)) or ""
    summary = text.partition("\n\n")[0]
    found = _INLINE.search(summary) or _DISPLAYED.search(text)
    return " ".join((found[1] if found else summary).split())


def _images(method: Method) -> dict[str, str]:
    targets = [part.targets for part in method.add_ons if part.targets] or [method.targets]
    mixed = [part.mixup for part in method.add_ons if part.mixup]
    own = targets[0] != OneHot()
    asked = _call(targets[0]) if own else "one-hot labels, drawn uniformly"
    return {
        "targets": asked,
        **({"centres": _call(method.centres)} if method.centres else {}),
        **({"student's images": _call(mixed[0])} if mixed else {}),
        "noise": f"{method.latent} numbers an image",
    }


def _print_presets(method: Method) -> None:
    rows = []
    for name, preset in method.presets.items():
        schedule = preset.schedule
        row = (
            name,
            f"{schedule.iterations} × {schedule.batch}",
            f"{schedule.range_warmup}, {schedule.student_warmup}",
            _rate(schedule),
        )
        rows.append(row)
    print_table(("", "images", "warm-up", "student's rate"), rows)
    print_text(
        "\nimages: iterations × batch; warm-up: iterations until ranges settle and until the "
        f"student learns; {_common(method.presets.values())}\n",
        "dim",
    )
    print_pairs(_quantizers(method.presets))
    others = _other_terms(method)
    if others:
        print_text("\nTerms with other numbers", "bold")
        print_pairs(others)


def _rate(schedule: Schedule) -> str:
    clip = f", clip {schedule.clip:g}" if schedule.clip is not None else ""
    start = f"{schedule.student_optimizer} {schedule.student_lr:g}"
    if schedule.decay == "cosine":
        return f"{start}, {schedule.lr_warmup} up, then cosine{clip}"
    steps = " ".join(str(milestone) for milestone in schedule.milestones)
    return f"{start}, ÷ 10 at {steps}{clip}"


def _common(presets: Iterable[Preset]) -> str:
    """The numbers that every preset shares, or hardly ever differ."""
    names = {
        "generator_lr": "generator's rate",
        "momentum": "SGD's momentum",
        "weight_decay": "decay",
    }
    seen = {name: sorted({getattr(preset.schedule, name) for preset in presets}) for name in names}
    return ", ".join(
        f"{text} {' or '.join(f'{value:g}' for value in seen[name])}"
        for name, text in names.items()
    )


def _quantizers(presets: Mapping[str, Preset]) -> dict[str, str]:
    groups = defaultdict(list)
    for name, preset in presets.items():
        groups[f"ranges {preset.ranges}, gradient {preset.gradient}, norms {preset.norms}"].append(
            name
        )
    return {how: ", ".join(names) for how, names in groups.items()}


def _other_terms(method: Method) -> dict[str, str]:
    """Terms that a preset has in place of the method's own."""
    own = [*method.generator_terms, *method.student_terms]
    others = {
        name: [*(preset.generator_terms or ()), *(preset.student_terms or ())]
        for name, preset in method.presets.items()
    }
    return {
        name: "; ".join(_product(term) for term in terms if term not in own)
        for name, terms in others.items()
        if terms
    }


def _product(term: Term | Weighted) -> str:
    return f"{term.weight:g} × {_call(term.term)}" if isinstance(term, Weighted) else _call(term)
