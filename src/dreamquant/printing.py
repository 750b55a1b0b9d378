"""Tables for people, on standard output."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from dreamquant.evaluation.metrics import Evaluation
from dreamquant.methods.method import Method, Terms
from dreamquant.results.result import Result
from dreamquant.terms.contract import Weighted

_console = Console(highlight=False)


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f} %"


def _interval(ci95: Iterable[float] | None) -> str:
    return "–" if ci95 is None else " – ".join(f"{end:.2f}" for end in ci95)


def result_table(result: Result, out: Path) -> None:
    """Accuracy before and after, what it was measured under, and where the files are."""
    manifest = result.manifest
    protocol, agreement = manifest["protocol"], manifest["agreement"]
    table = Table(title=f"{manifest['network']['name']} at {protocol['bits']}")
    for column in ("", "top-1", "95 % interval"):
        table.add_column(column, justify="left" if not column else "right")
    rows = {
        "full precision": "teacher",
        "quantized, ranges only": "ranges_only",
        "after recovery without data": "student",
    }
    for label, key in rows.items():
        measured = manifest["accuracy"][key] or {"top1": None, "ci95": None}
        table.add_row(label, _percent(measured["top1"]), _interval(measured["ci95"]))
    _console.print(table)
    _console.print(
        f"agreement with the full-precision network: {_percent(agreement['percent'])} "
        f"of {agreement['on']}"
    )
    _console.print(_protocol_line(manifest))
    _console.print(_storage_line(manifest["coverage"]))
    for computation in manifest["coverage"]["left_in_float"]:
        _console.print(f"left in float: {computation}")
    for name in ("manifest.json", *manifest.get("files", {})):
        _console.print(f"  {out / name}", soft_wrap=True)


def _protocol_line(manifest: dict[str, Any]) -> str:
    protocol, timings = manifest["protocol"], manifest["timings"]
    return (
        f"protocol: {protocol['placement']}; weights {protocol['weights']}; activations "
        f"{protocol['activations']}; first/last {protocol['first_last_bits']}; last of "
        f"{timings['iterations']} iterations; seed {protocol['seed']}; "
        f"{timings['seconds']:.0f} s"
    )


def _storage_line(coverage: dict[str, Any]) -> str:
    parts = {
        "packed weights": coverage["weight_bytes"],
        "scales": coverage["scale_bytes"],
        "left in float": coverage["float_bytes"],
    }
    full = 4 * sum(layer["weights"] for layer in coverage["layers"]) + coverage["float_bytes"]
    shown = " + ".join(f"{size / 1024:.1f} KiB {name}" for name, size in parts.items())
    return f"storage: {shown}, of {full / 1024:.1f} KiB in float32"


def evaluation_table(evaluation: Evaluation, title: str) -> None:
    """An evaluation as a table."""
    table = Table(title=title)
    for column in ("images", "top-1", "top-5", "agreement", "95 % interval"):
        table.add_column(column, justify="right")
    table.add_row(
        str(evaluation.n),
        _percent(evaluation.top1),
        _percent(evaluation.top5),
        _percent(evaluation.agreement),
        _interval(evaluation.ci95),
    )
    _console.print(table)


def methods_table(methods: Iterable[Method]) -> None:
    """All methods, a line each."""
    table = Table()
    for column in ("method", "paper", "what it does"):
        table.add_column(column)
    for method in methods:
        table.add_row(method.name, f"{method.paper.authors}, {method.paper.venue}", method.summary)
    _console.print(table)


def method_page(method: Method) -> None:
    """One method: provenance, terms and presets."""
    paper = method.paper
    _console.print(f"[bold]{method.name}[/]: {method.summary}")
    _console.print(f"{paper.authors}: {paper.title}, {paper.venue}")
    _console.print(f"confirmed: {paper.confirmed}")
    _console.print(f"ours: {paper.ours}")
    _print_terms("generator minimises", method.generator_terms)
    _print_terms("student minimises", method.student_terms)
    for name, preset in method.presets.items():
        _console.print(f"preset {name}: ranges {preset.ranges}, gradient {preset.gradient}")
        _console.print(f"  {preset.schedule}", soft_wrap=True)


def _print_terms(title: str, terms: Terms) -> None:
    _console.print(f"{title}:")
    for term in terms:
        weight, inner = (term.weight, term.term) if isinstance(term, Weighted) else (1.0, term)
        _console.print(f"  {weight:g} × {inner}")


def doctor_table(findings: dict[str, Any]) -> None:
    """What ``dreamquant doctor`` found."""
    _console.print(f"python {findings['python']}")
    for group in ("core", "devices"):
        for name, value in findings[group].items():
            _console.print(f"{name}: {value or 'none'}")
    for extra, parts in findings["optional"].items():
        for name, value in parts.items():
            _console.print(f"[{extra}] {name}: {value}", markup=False)
