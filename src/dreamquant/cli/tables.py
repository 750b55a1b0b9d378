"""Prints tables and pages on standard output."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.table import Table

from dreamquant.evaluation.evaluation import Evaluation
from dreamquant.evaluation.majority import remark
from dreamquant.results.floats import in_float, remedy
from dreamquant.results.folder import REPORT
from dreamquant.results.result import Result
from dreamquant.results.scores import main_score
from dreamquant.results.steps import steps_in_brief
from dreamquant.results.storage import storage_of

_console = Console(highlight=False)

# Names in the table for the accuracies in the manifest.
_QUANTIZED = {
    "teacher": "full precision",
    "ranges_only": "quantized, ranges only",
    "student": "after recovery without data",
}
_DISTILLED = {"teacher": "teacher", "student": "student, trained without data"}


def _percent(value: float) -> str:
    return f"{value:.2f} %"


def _interval(ci95: Iterable[float] | None) -> str:
    return "" if ci95 is None else " – ".join(f"{end:.2f}" for end in ci95)


def print_text(text: str = "", style: str | None = None) -> None:
    """Print a line of plain text."""
    _console.print(text, style=style, markup=False)


def print_path(path: object) -> None:
    """Print a path without line breaks, so that it can be copied from a narrow terminal."""
    _console.print(str(path), markup=False, soft_wrap=True)


def _table(*columns: str, numbers: bool = False, title: str | None = None) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), title=title)
    for i, column in enumerate(columns):
        table.add_column(column, justify="right" if numbers and i else "left")
    return table


def print_pairs(pairs: Mapping[str, str]) -> None:
    """Print names and texts in two columns; long texts wrap within their column."""
    table = Table.grid(padding=(0, 2, 0, 0))
    for name, text in pairs.items():
        table.add_row(name, text)
    _console.print(table, markup=False)


def print_indented(text: str) -> None:
    """Print a text of several lines, indented by eight spaces."""
    _console.print(Padding(text, (0, 0, 0, 8), expand=False), markup=False)


def print_table(columns: Iterable[str], rows: Iterable[Iterable[str]]) -> None:
    """Print a table of texts with headings."""
    table = _table(*columns)
    for row in rows:
        table.add_row(*row)
    _console.print(table, markup=False)


def result_table(result: Result, out: Path) -> None:
    """Print accuracies before and after, the protocol, and the files."""
    manifest = result.manifest
    quantized = manifest["scheme"] is not None
    method, protocol = manifest["method"], manifest["protocol"]
    print_path(manifest["network"]["name"])
    for text in manifest["network"].get("notes", ()):
        print_text(text)
    print_text(f"at {protocol['bits']} by {method['name']}, preset {method['preset']}\n", "bold")
    left = in_float(manifest["coverage"]) if quantized else None
    if left and left.warning:
        _print_warning(left.warning, remedy(protocol["placement"]))
    _print_accuracies(manifest["accuracy"], _QUANTIZED if quantized else _DISTILLED)
    _print_agreement(manifest["agreement"])
    print_pairs(_protocol(manifest) if quantized else _distillation(manifest))
    print_text()
    for name in ("manifest.json", *manifest.get("files", {})):
        print_path(out / name)
    if (out / REPORT).exists():
        print_text("\nreport for a browser:")
        print_path(out / REPORT)


def pool_table(summary: Mapping[str, Any], out: Path) -> None:
    """Print a summary of a pool of images."""
    print_text(f"{summary['count']} images by {summary['method']}", "bold")
    print_pairs(
        {
            "confidence": f"{summary['confidence']:.0%} on average, of the class that the teacher "
            f"sees; {summary['classes']} classes are seen",
            "storage": f"{summary['mib']:.1f} MiB, half precision",
            "time": f"{summary['seconds']:.0f} s",
            "use": f"dreamquant quantize … --images {out}",
        }
    )
    print_text()
    for name in ("pool.json", "images.png"):
        print_path(out / name)


def _print_warning(what: str, solution: str) -> None:
    print_text(f"warning: {what}; {solution}\n", "yellow")


def _print_agreement(agreement: Mapping[str, Any]) -> None:
    shown = _percent(agreement["percent"])
    said = agreement.get("remark")  # only where agreement says little
    if said:
        _print_warning(said["what"], said["remedy"])
    if "means" not in agreement:
        print_text(f"agreement with the full-precision network: {shown} of {agreement['on']}\n")
        return
    print_text(f"agreement with the full-precision network: {shown} on {agreement['on']}")
    print_text(f"({agreement['means']})")
    for name, percent in agreement["outputs"].items():
        print_text(f"  {name}: {_percent(percent)}")
    print_text()


def _print_accuracies(accuracy: Mapping[str, Any], names: Mapping[str, str]) -> None:
    rows = {name: accuracy[key] for key, name in names.items()}
    found = {name: main_score(row) for name, row in rows.items()}
    known = {name: score for name, score in found.items() if score is not None}
    if not known:
        return
    table = _table("", next(iter(known.values())).name, "95 % interval", numbers=True)
    for name, score in known.items():
        table.add_row(name, _percent(score.value), _interval(score.ci95))
    _console.print(table)
    print_text()


def _protocol(manifest: Mapping[str, Any]) -> dict[str, str]:
    protocol, timings = manifest["protocol"], manifest["timings"]
    stored = protocol.get("joins")
    joins = f"; element-wise and concat inputs {stored} bits" if stored else ""
    chosen = "bits_chosen" in manifest
    others = "".join(f"; {name} {bits}" for name, bits in protocol["overrides"].items())
    others = "; bits of each layer chosen" if chosen else others
    left = in_float(manifest["coverage"])
    return {
        "protocol": f"{protocol['placement']}; first and last layer "
        f"{protocol['first_last_bits']}{others}{joins}; seed {protocol['seed']}",
        "steps": steps_in_brief(manifest),
        "weights": protocol["weights"],
        "activations": protocol["activations"],
        "batch norm": protocol["batch_norm"],
        **({"images": protocol["images"]} if "images" in protocol else {}),
        **({"in float": str(left)} if left else {}),
        "storage": _storage(manifest["coverage"]),
        "time": _time(timings),
    }


def _distillation(manifest: Mapping[str, Any]) -> dict[str, str]:
    protocol, count = manifest["protocol"], manifest["parameters"]
    share = 100 * count["student"] / count["teacher"]
    return {
        "teacher": manifest["teacher"]["name"],
        "protocol": f"seed {protocol['seed']}",
        "steps": steps_in_brief(manifest),
        "parameters": f"{count['student']:,} instead of {count['teacher']:,}, {share:.0f} %",
        "time": _time(manifest["timings"]),
    }


def _time(timings: Mapping[str, Any]) -> str:
    taken = f"{timings['seconds']:.0f} s, of which {timings['training_seconds']:.0f} s in its steps"
    why = timings.get("ended_early")  # earlier versions did not tell
    return f"{taken}; ended early, {why}" if why else taken


def _storage(coverage: Mapping[str, Any]) -> str:
    stored = storage_of(coverage)
    parts = {
        "packed weights": stored.weights,
        "scales": stored.scales,
        "left in float": stored.left_in_float,
    }
    shown = " + ".join(f"{size / 1024:.1f} {name}" for name, size in parts.items())
    return (
        f"{stored.small / 1024:.1f} KiB instead of {stored.full / 1024:.1f} KiB, "
        f"{stored.full / stored.small:.1f} times less: {shown}"
    )


def evaluation_table(evaluation: Evaluation, title: str) -> None:
    """Print the figures of an evaluation and the number of images."""
    of = "agreement" if evaluation.main is None else evaluation.main[0]
    measured = {
        "top-1": evaluation.top1,
        "top-5": evaluation.top5,
        **evaluation.scores,
        "agreement": evaluation.agreement,
        **{f"agreement of {name}": each for name, each in evaluation.outputs.items()},
    }
    print_path(title)
    print_text(f"{evaluation.n} images\n", "bold")
    table = _table("", "", "95 % interval", numbers=True)
    for name, value in measured.items():
        if value is not None:
            table.add_row(name, _percent(value), _interval(evaluation.ci95) if name == of else "")
    _console.print(table)
    on = f"{evaluation.n} images"
    said = None if evaluation.main else remark(evaluation.constant, on, given=True)
    if said:
        print_text()
        _print_warning(*said)


def doctor_table(findings: Mapping[str, Any]) -> None:
    """Print the findings of ``dreamquant doctor``."""
    _print_group("core", findings["core"])
    devices = findings["devices"]
    _print_group("devices", {"cpu": devices["cpu"], "cuda": "\n".join(devices["cuda"]) or "none"})
    _print_group("processor", findings["processor"])
    for extra, parts in findings["optional"].items():
        lacking = findings["remedies"].get(extra)
        _print_group(f"extra {extra}", parts | ({"to get it": lacking} if lacking else {}))


def _print_group(title: str, pairs: Mapping[str, str]) -> None:
    print_text(title, "bold")
    print_pairs({f"  {name}": text for name, text in pairs.items()})
