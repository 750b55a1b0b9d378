"""One result as a page."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from dreamquant.report.agreement import size_chart, stage_chart
from dreamquant.report.charts import curve, interval_chart
from dreamquant.report.findings import findings, worst_classes
from dreamquant.report.headline import Headline, change, headline
from dreamquant.report.layers import distributions, panels, rows
from dreamquant.report.read import Record, damage_named
from dreamquant.report.wording import class_name, command, duration, files, protocol, signed, size

_PAGE = Path(__file__).parent / "page"
_PLAYERS = {"generator": "generator", "student": "student", "mixup": "student, on mixed images"}


@cache
def environment() -> Environment:
    """Templates of the package, compiled once; everything is escaped that is not markup."""
    made = Environment(
        loader=FileSystemLoader(_PAGE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"size": size, "duration": duration, "signed": signed}
    # Files of the package itself, put into the page as they are.
    made.globals["inlined"] = {
        name: Markup((_PAGE / name).read_text("utf-8")) for name in ("style.css", "script.js")
    }
    return made


def render(record: Record) -> str:
    """The HTML page of one result.

    Raises:
        ResultError: its record is damaged.
    """
    with damage_named(record.folder):
        return environment().get_template("report.html").render(**_context(record))


def _context(record: Record) -> dict[str, Any]:
    manifest, analysis = record.manifest, record.analysis
    head = headline(record)
    sites = analysis.get("sites", [])
    weights = [site for site in sites if site["kind"] == "weight"]
    activations = [site for site in sites if site["kind"] != "weight"]
    return {
        "head": head,
        "change": change(record),
        "chart": interval_chart(head.rows, f"{head.measure} in percent with 95 % intervals"),
        "method": manifest["method"],
        "chosen": _chosen(manifest),
        "timings": manifest["timings"],
        "findings": findings(record, head),
        "protocol": protocol(manifest),
        "samples": _samples(record),
        "diversity": manifest["diversity"],
        "stages": stage_chart(manifest["phases"]),
        "accuracy_curve": _accuracy_curve(record, head),
        "losses": _losses(manifest["history"]["losses"], manifest["timings"]["iterations"]),
        "panels": panels(sites, f"{analysis['images']} {analysis['on']}") if sites else [],
        "weights": rows(weights),
        "activations": rows(activations),
        "measured_sites": sum(site["alone"] is not None for site in sites),
        "distributions": {
            "Weights": distributions(weights),
            "Activations": distributions(activations),
        }
        if sites
        else {},
        "answers": analysis.get("answers"),
        "classes": worst_classes(record),
        "changes": _changes(record),
        "diagnostics": record.diagnostics,
        "command": command(manifest),
        "versions": manifest["versions"],
        "hardware": manifest["hardware"],
        "files": files(manifest, record.folder.resolve()),
    }


def _samples(record: Record) -> list[dict[str, Any]]:
    return [
        {
            "name": None
            if sample["class"] is None
            else class_name(record.manifest, sample["class"]),
            "percent": 100 * sample["confidence"],
            "source": f"data:{sample['type']};base64,{sample['base64']}",
        }
        for sample in record.analysis.get("samples", [])
    ]


def _accuracy_curve(record: Record, head: Headline) -> Markup | None:
    """Top-1 on the way, from ranges only to the end."""
    manifest = record.manifest
    glances = manifest["history"]["accuracy"]
    if not glances:
        return None
    total, points = manifest["timings"]["iterations"], []
    if head.rounded is not None:
        points.append((float(manifest["ranges_set_at"]), head.rounded.value))
    # That of all images takes the place of the first glance, which is at the same iteration.
    points += [
        (float(glance["iteration"]), float(glance["top1"]))
        for glance in glances
        if not points or glance["iteration"] > points[0][0]
    ]
    points.append((float(total), head.after.value))
    label = "accuracy over iterations"
    return curve(points, label, total, unit=" %", reference=head.before, dots=True)


def _losses(entries: Sequence[dict[str, float]], total: int) -> list[tuple[str, Markup]]:
    """A curve for every term, named in words."""
    names = dict.fromkeys(name for entry in entries for name in entry if name != "iteration")
    return [
        (_term(name), curve(_series(entries, name), f"{_term(name)} over iterations", total))
        for name in names
    ]


def _term(name: str) -> str:
    player, _, term = name.partition("/")
    return f"{term} ({_PLAYERS.get(player, player)})"


def _series(entries: Sequence[dict[str, float]], name: str) -> list[tuple[float, float]]:
    return [(float(entry["iteration"]), float(entry[name])) for entry in entries if name in entry]


def _changes(record: Record) -> list[dict[str, Any]]:
    answers = record.analysis.get("answers") or {}
    return [
        pair
        | {name: class_name(record.manifest, pair[name]) for name in ("truth", "answer")}
        | {"by": pair["student"] - pair["teacher"]}
        for pair in answers.get("changes", [])[:12]
    ]


def _chosen(manifest: dict[str, Any]) -> dict[str, Any] | None:
    """The curve that bits were chosen on, and its chart."""
    record = manifest.get("bits_chosen")
    if record is None:
        return None
    points = [(float(each["bytes"]), float(each["agreement"])) for each in record["curve"]]
    return {**record, "chart": size_chart(points, float(record["bytes"]))}
