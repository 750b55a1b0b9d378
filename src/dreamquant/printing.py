"""Tables and pages for people, on standard output."""

from __future__ import annotations

import inspect
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.table import Table

from dreamquant.evaluation.metrics import Evaluation
from dreamquant.methods.method import Method, Paper, Preset, Terms
from dreamquant.methods.schedule import Schedule
from dreamquant.results.result import REPORT, Result
from dreamquant.synthesis.targets import OneHot
from dreamquant.terms.contract import Term, Weighted

_console = Console(highlight=False)

_INLINE = re.compile(r"``(.+?)``", re.DOTALL)
_DISPLAYED = re.compile(r"^``(.+?)``", re.DOTALL | re.MULTILINE)
# What the table calls each accuracy of the manifest.
_QUANTIZED = {
    "teacher": "full precision",
    "ranges_only": "quantized, ranges only",
    "student": "after recovery without data",
}
_DISTILLED = {"teacher": "teacher", "student": "student, trained without data"}
_PRECISIONS = {"32": "float32", "bf16": "bfloat16"}
_SYMBOLS = {
    "z_p": "z_p: the teacher's logits",
    "z_q": "z_q: the student's logits",
    "y)": "y: the label asked for",
    "H'": "H': entropy of softmax(z_p - z_q), normalised to 0 … 1",
    "T²": "T: temperature",
    "μ": "μ, σ²: mean and variance at a batch norm's input, with a hat those of the batch",
}


def _percent(value: float) -> str:
    return f"{value:.2f} %"


def _interval(ci95: Iterable[float] | None) -> str:
    return "" if ci95 is None else " – ".join(f"{end:.2f}" for end in ci95)


def _print(text: str = "", style: str | None = None) -> None:
    _console.print(text, style=style, markup=False)


def _print_path(path: object) -> None:
    # In one piece, however narrow the terminal is, so that it can be copied.
    _console.print(str(path), markup=False, soft_wrap=True)


def _table(*columns: str, numbers: bool = False, title: str | None = None) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), title=title)
    for i, column in enumerate(columns):
        table.add_column(column, justify="right" if numbers and i else "left")
    return table


def _print_pairs(pairs: Mapping[str, str]) -> None:
    """Names and texts in two columns; a text that needs several lines stays in its own."""
    table = Table.grid(padding=(0, 2, 0, 0))
    for name, text in pairs.items():
        table.add_row(name, text)
    _console.print(table, markup=False)


def print_text(text: str = "", style: str | None = None) -> None:
    """A line of plain text."""
    _print(text, style)


def print_path(path: object) -> None:
    """A path in one piece, however narrow the terminal is."""
    _print_path(path)


def print_pairs(pairs: Mapping[str, str]) -> None:
    """Names and texts in two columns."""
    _print_pairs(pairs)


def print_table(columns: Iterable[str], rows: Iterable[Iterable[str]]) -> None:
    """A table of texts under their headings."""
    table = _table(*columns)
    for row in rows:
        table.add_row(*row)
    _console.print(table, markup=False)


def result_table(result: Result, out: Path) -> None:
    """Accuracy before and after, what it was measured under, and where the files are."""
    manifest = result.manifest
    quantized = manifest["scheme"] is not None
    method, protocol = manifest["method"], manifest["protocol"]
    _print_path(manifest["network"]["name"])
    _print(f"at {protocol['bits']} by {method['name']}, preset {method['preset']}\n", "bold")
    _print_accuracies(manifest["accuracy"], _QUANTIZED if quantized else _DISTILLED)
    agreement = manifest["agreement"]
    _print(
        f"agreement with the full-precision network: {_percent(agreement['percent'])} "
        f"of {agreement['on']}\n"
    )
    _print_pairs(_protocol(manifest) if quantized else _distillation(manifest))
    _print()
    for name in ("manifest.json", *manifest.get("files", {})):
        _print_path(out / name)
    if (out / REPORT).exists():
        _print("\nto read in a browser:")
        _print_path(out / REPORT)


def _print_accuracies(accuracy: Mapping[str, Any], names: Mapping[str, str]) -> None:
    rows = {name: accuracy[key] for key, name in names.items()}
    known = {name: row for name, row in rows.items() if row and row["top1"] is not None}
    if not known:
        return
    table = _table("", "top-1", "95 % interval", numbers=True)
    for name, row in known.items():
        table.add_row(name, _percent(row["top1"]), _interval(row["ci95"]))
    _console.print(table)
    _print()


def _protocol(manifest: Mapping[str, Any]) -> dict[str, str]:
    protocol, timings = manifest["protocol"], manifest["timings"]
    joins = f"; joins {protocol['joins']}" if "joins" in protocol else ""
    others = "".join(f"; {name} {bits}" for name, bits in protocol["overrides"].items())
    left = Counter(manifest["coverage"]["left_in_float"])
    float_parts = "; ".join(f"{count} x {part}" for part, count in left.items())
    return {
        "protocol": f"{protocol['placement']}; first and last layer "
        f"{protocol['first_last_bits']}{others}{joins}; last of {timings['iterations']} "
        f"iterations; seed {protocol['seed']}; "
        f"trained in {_PRECISIONS[protocol['training_precision']]}",
        "weights": protocol["weights"],
        "activations": protocol["activations"],
        **({"in float": float_parts} if left else {}),
        "storage": _storage(manifest["coverage"]),
        "time": _time(timings),
    }


def _distillation(manifest: Mapping[str, Any]) -> dict[str, str]:
    protocol, count = manifest["protocol"], manifest["parameters"]
    share = 100 * count["student"] / count["teacher"]
    return {
        "teacher": manifest["teacher"]["name"],
        "protocol": f"last of {manifest['timings']['iterations']} iterations; seed "
        f"{protocol['seed']}; trained in {_PRECISIONS[protocol['training_precision']]}",
        "parameters": f"{count['student']:,} instead of {count['teacher']:,}, {share:.0f} %",
        "time": _time(manifest["timings"]),
    }


def _time(timings: Mapping[str, float]) -> str:
    return f"{timings['seconds']:.0f} s, of which {timings['training_seconds']:.0f} s training"


def _storage(coverage: Mapping[str, Any]) -> str:
    parts = {
        "packed weights": coverage["weight_bytes"],
        "scales": coverage["scale_bytes"],
        "left in float": coverage["float_bytes"],
    }
    full = 4 * sum(layer["weights"] for layer in coverage["layers"]) + coverage["float_bytes"]
    shown = " + ".join(f"{size / 1024:.1f} {name}" for name, size in parts.items())
    small = sum(parts.values())
    return (
        f"{small / 1024:.1f} KiB instead of {full / 1024:.1f} KiB, {full / small:.1f} times less: "
        f"{shown}"
    )


def evaluation_table(evaluation: Evaluation, title: str) -> None:
    """An evaluation: what was measured, on how many images."""
    of = "top-1" if evaluation.top1 is not None else "agreement"
    measured = {
        "top-1": evaluation.top1,
        "top-5": evaluation.top5,
        "agreement": evaluation.agreement,
    }
    _print_path(title)
    _print(f"{evaluation.n} images\n", "bold")
    table = _table("", "", "95 % interval", numbers=True)
    for name, value in measured.items():
        if value is not None:
            table.add_row(name, _percent(value), _interval(evaluation.ci95) if name == of else "")
    _console.print(table)


def methods_table(methods: Iterable[Method]) -> None:
    """All methods, a line each."""
    table = _table("method", "paper", "what it does")
    joining = []
    for method in methods:
        # A published add-on is listed on its base; what it does is the news.
        paper, summary = method.paper, method.summary
        for add_on in method.add_ons:
            paper, summary = add_on.paper, add_on.summary
            joining.append(add_on.name)
        table.add_row(method.name, f"{paper.authors}, {paper.venue}", summary)
    _console.print(table)
    if joining:
        _print(f"\n{', '.join(joining)} can join any method, as in --method adadfq+{joining[0]}.")
    _print("`dreamquant methods NAME` shows the terms, weights, schedules and provenance of one.")


def method_page(method: Method) -> None:
    """One method as a paper would have it: losses, schedules, and where they come from."""
    _print(method.name, "bold")
    _print_paper(method.summary, method.paper)
    for add_on in method.add_ons:
        _print_paper(add_on.summary, add_on.paper)
    added = [term for add_on in method.add_ons for term in add_on.generator_terms]
    generator = _weighted([*method.generator_terms, *added])
    student = _weighted(method.student_terms)
    _print_terms("The generator minimises", generator)
    _print_terms("The student minimises", student)
    _print_symbols([*generator, *student])
    _print_pairs(_images(method))
    _print("\nPresets", "bold")
    _print_presets(method)


def _print_paper(summary: str, paper: Paper) -> None:
    _print_pairs(
        {
            "idea": summary,
            "paper": f"{paper.authors}, {paper.title}, {paper.venue}",
            "confirmed": paper.confirmed,
            "ours": paper.ours,
        }
    )
    _print()


def _weighted(terms: Terms) -> list[Weighted]:
    return [term if isinstance(term, Weighted) else Weighted(1.0, term) for term in terms]


def _print_terms(title: str, terms: Iterable[Weighted]) -> None:
    _print(title, "bold")
    sign = " "
    for weighted in terms:
        _print(f"  {sign} {weighted.weight:g} × {_call(weighted.term)}")
        _console.print(Padding(_formula(weighted.term), (0, 0, 0, 8), expand=False), markup=False)
        sign = "+"
    _print()


def _print_symbols(terms: Iterable[Weighted]) -> None:
    formulas = " ".join(_formula(weighted.term) for weighted in terms)
    used = [meaning for symbol, meaning in _SYMBOLS.items() if symbol in formulas]
    _print("; ".join(used) + "\n", "dim")


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
    table = _table("", "images", "warm-up", "student's rate")
    for name, preset in method.presets.items():
        schedule = preset.schedule
        table.add_row(
            name,
            f"{schedule.iterations} × {schedule.batch}",
            f"{schedule.range_warmup}, {schedule.student_warmup}",
            _rate(schedule),
        )
    _console.print(table)
    _print(
        "\nimages: iterations × batch; warm-up: iterations until ranges settle and until the "
        f"student learns; {_common(method.presets.values())}\n",
        "dim",
    )
    _print_pairs(_quantizers(method.presets))
    others = _other_terms(method)
    if others:
        _print("\nTerms with other numbers", "bold")
        _print_pairs(others)


def _rate(schedule: Schedule) -> str:
    clip = f", clip {schedule.clip:g}" if schedule.clip is not None else ""
    if schedule.decay == "cosine":
        return f"{schedule.student_lr:g}, {schedule.lr_warmup} up, then cosine{clip}"
    steps = " ".join(str(milestone) for milestone in schedule.milestones)
    return f"{schedule.student_lr:g}, ÷ 10 at {steps}{clip}"


def _common(presets: Iterable[Preset]) -> str:
    """The numbers that every preset shares, or hardly ever differ."""
    names = {"generator_lr": "generator's rate", "momentum": "momentum", "weight_decay": "decay"}
    seen = {name: sorted({getattr(preset.schedule, name) for preset in presets}) for name in names}
    return ", ".join(
        f"{text} {' or '.join(f'{value:g}' for value in seen[name])}"
        for name, text in names.items()
    )


def _quantizers(presets: Mapping[str, Preset]) -> dict[str, str]:
    groups = defaultdict(list)
    for name, preset in presets.items():
        groups[f"ranges {preset.ranges}, gradient {preset.gradient}"].append(name)
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


def doctor_table(findings: Mapping[str, Any]) -> None:
    """What ``dreamquant doctor`` found."""
    _print_group("core", findings["core"])
    devices = findings["devices"]
    _print_group("devices", {"cpu": devices["cpu"], "cuda": "\n".join(devices["cuda"]) or "none"})
    for extra, parts in findings["optional"].items():
        lacking = findings["remedies"].get(extra)
        _print_group(f"extra {extra}", parts | ({"to get it": lacking} if lacking else {}))


def _print_group(title: str, pairs: Mapping[str, str]) -> None:
    _print(title, "bold")
    _print_pairs({f"  {name}": text for name, text in pairs.items()})
