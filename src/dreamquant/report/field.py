"""Many results in tables: one table a protocol, seeds together, never ranked across protocols."""

from __future__ import annotations

import json
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dreamquant.errors import ResultError
from dreamquant.report.compare import protocol_names
from dreamquant.report.headline import headline
from dreamquant.report.read import damage_named, read_record
from dreamquant.results.manifest import MANIFEST

# What results under one protocol may differ in: it is the rows and columns of their table.
_OF_A_ROW = ("seed", "training_precision", "accumulate", "teacher_sha256")
_OF_A_METHOD = ("weights", "activations", "gradient", "batch_norm")


@dataclass(frozen=True)
class Row:
    """One method's results under one protocol.

    Attributes:
        method: its name; the preset, where not ``quick``; the budget or iterations asked for; how
            it rounds, where a method is there twice.
        values: accuracy or agreement in percent, one a seed.
        rounded: the same of rounding alone, one a seed that was measured.
        seconds: of the whole run, one a seed.
    """

    method: str
    values: tuple[float, ...]
    rounded: tuple[float, ...]
    seconds: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Over the seeds."""
        return statistics.fmean(self.values)

    @property
    def deviation(self) -> float | None:
        """Standard deviation over the seeds; ``None`` of one."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None

    @property
    def told(self) -> str:
        """Mean and deviation in text."""
        spread = self.deviation
        return f"{self.mean:.2f}" + ("" if spread is None else f" ± {spread:.2f}")


@dataclass(frozen=True)
class Group:
    """Results that share network, bits, protocol and images, best mean first."""

    network: str
    measure: str
    teacher: float | None
    protocol: dict[str, str]
    rows: tuple[Row, ...]

    @property
    def title(self) -> str:
        """The network, its bits, and what was measured."""
        full = "" if self.teacher is None else f" (full precision {self.teacher:.2f} %)"
        return f"{self.network} at {self.protocol['bits']}{full}: {self.measure}"


@dataclass(frozen=True)
class Field:
    """What was compared, and the cells of sweeps that failed."""

    groups: tuple[Group, ...]
    failures: dict[str, str]


def read_field(folders: Iterable[Path]) -> Field:
    """The results in folders, and in the folders within.

    Raises:
        ResultError: a folder holds none, or a record is damaged.
    """
    found: dict[tuple[str, ...], list[dict[str, Any]]] = defaultdict(list)
    failures: dict[str, str] = {}
    for folder in folders:
        results = _results(folder)
        failures |= _failures(folder)
        if not results and not failures:
            raise ResultError(
                "there is no result in the folder",
                where=str(folder),
                remedy="give the --out folder of a finished run or of a sweep",
            )
        for result in results:
            entry = _entry(result)
            found[entry["group"]].append(entry)
    groups = [_group(entries) for entries in found.values()]
    return Field(tuple(sorted(groups, key=lambda group: group.title)), failures)


def _results(folder: Path) -> list[Path]:
    return sorted(path.parent for path in folder.rglob(MANIFEST))


def _failures(folder: Path) -> dict[str, str]:
    records = sorted(folder.rglob("failures/*.json"))
    failed = [json.loads(path.read_text(encoding="utf-8")) for path in records]
    return {each["cell"]: each["error"] for each in failed}


def _entry(folder: Path) -> dict[str, Any]:
    record = read_record(folder)
    with damage_named(folder):
        head, manifest = headline(record), record.manifest
        protocol = {
            name: str(value)
            for name, value in manifest["protocol"].items()
            if name not in (*_OF_A_ROW, *_OF_A_METHOD) and value not in ({}, None)
        }
        protocol["on"] = head.on
        teacher = None if head.before is None else head.before.value
        network = manifest["network"]
        return {
            "group": (head.network, network["weights_sha256"], head.measure, *protocol.items()),
            "network": head.network,
            "measure": head.measure,
            "teacher": teacher,
            "protocol": protocol,
            "row": (_method(manifest), _rounding(manifest["protocol"])),
            "value": head.after.value,
            "rounded": head.rounded.value if head.rounded else None,
            "seconds": float(manifest["timings"]["seconds"]),
        }


def _method(manifest: dict[str, Any]) -> str:
    method, request = manifest["method"], manifest["request"]
    preset = "" if method["preset"] == "quick" else f", {method['preset']}"
    length = request.get("budget") or request.get("iterations")
    asked = "" if length is None else f", {length}{'' if 'budget' in request else ' iterations'}"
    return f"{method['name']}{preset}{asked}"


def _rounding(protocol: dict[str, Any]) -> str:
    return "; ".join(str(protocol[name]) for name in _OF_A_METHOD if name in protocol)


def _group(entries: Sequence[dict[str, Any]]) -> Group:
    rows: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for entry in entries:
        rows[entry["row"]].append(entry)
    names = Counter(method for method, _ in rows)
    made = [
        Row(
            method if names[method] == 1 else f"{method} ({rounding})",
            values=tuple(each["value"] for each in those),
            rounded=tuple(e["rounded"] for e in those if e["rounded"] is not None),
            seconds=tuple(each["seconds"] for each in those),
        )
        for (method, rounding), those in rows.items()
    ]
    first = entries[0]
    ordered = tuple(sorted(made, key=lambda row: row.mean, reverse=True))
    return Group(first["network"], first["measure"], first["teacher"], first["protocol"], ordered)


def as_markdown(field: Field) -> str:
    """The tables as Markdown."""
    lines = ["# Results compared", ""]
    for group in field.groups:
        names = protocol_names(group.protocol)
        lines += [
            f"## {group.title}",
            "",
            "; ".join(f"{name}: {value}" for name, value in names.items()) + ".",
            "",
            f"| method | {group.measure}, % | rounding alone, % | seconds | seeds |",
            "|---|---|---|---|---|",
            *(_line(row) for row in group.rows),
            "",
        ]
    if field.failures:
        lines += ["## Failed", ""]
        lines += [f"- {name}: {_in_a_line(error)}" for name, error in field.failures.items()]
    return "\n".join(lines).rstrip() + "\n"


def _in_a_line(error: str) -> str:
    return "; ".join(line.strip() for line in error.splitlines())


def _line(row: Row) -> str:
    rounded = f"{statistics.fmean(row.rounded):.2f}" if row.rounded else ""
    seconds = f"{statistics.fmean(row.seconds):.0f}"
    return f"| {row.method} | {row.told} | {rounded} | {seconds} | {len(row.values)} |"


def as_json(field: Field) -> dict[str, Any]:
    """The tables as plain JSON values."""
    return {
        "groups": [
            {
                "network": group.network,
                "measure": group.measure,
                "teacher": group.teacher,
                "protocol": group.protocol,
                "rows": [
                    {**vars(row), "mean": row.mean, "deviation": row.deviation}
                    for row in group.rows
                ],
            }
            for group in field.groups
        ],
        "failures": field.failures,
    }
