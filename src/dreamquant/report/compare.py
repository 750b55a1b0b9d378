"""Several results side by side: ranked only where their protocols are the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dreamquant.report.charts import Estimate, interval_chart
from dreamquant.report.headline import Headline, headline
from dreamquant.report.read import Record, damage_named
from dreamquant.report.render import environment

_NAMES = {
    "bits": "bits",
    "first_last_bits": "bits of the first and the last layer",
    "overrides": "bits of other layers",
    "placement": "places where activations are rounded",
    "weights": "how weights are rounded",
    "activations": "how activations are rounded",
    "gradient": "gradient through the rounding",
    "joins": "bits of inputs of sums, concatenations and poolings",
    "image": "bits of the image",
    "batch_norm": "batch norm",
    "iteration": "reported iteration",
    "teacher_sha256": "the original network",
    "seed": "seed",
    "training_precision": "precision of training",
    "accumulate": "micro-batches of a batch",
    "measure": "measure",
    "on": "test images",
}


@dataclass(frozen=True)
class Compared:
    """One result in a comparison."""

    name: str
    record: Record
    head: Headline


def render_comparison(records: Sequence[Record]) -> str:
    """The HTML page that compares results.

    Raises:
        ResultError: a record is damaged.
    """
    results = [_compared(record) for record in records]
    with damage_named(records[0].folder):
        protocols = [_protocol(result) for result in results]
        differences = different(protocols)
        ordered = results if differences else _ranked(results)
        rows = [
            Estimate(
                result.name, result.head.after.value, result.head.after.low, result.head.after.high
            )
            for result in ordered
        ]
        return (
            environment()
            .get_template("comparison.html")
            .render(
                results=ordered,
                differences=differences,
                given=results,
                apart=not differences and _apart(ordered),
                chart=interval_chart(rows, "results with 95 % intervals"),
                measure=results[0].head.measure,
            )
        )


def different(protocols: Sequence[dict[str, Any]]) -> dict[str, list[Any]]:
    """What is not the same in all protocols: its name, and its value in each of them."""
    keys = dict.fromkeys(key for protocol in protocols for key in protocol)
    values = {key: [protocol.get(key) for protocol in protocols] for key in keys}
    return {
        _NAMES.get(key, key): found
        for key, found in values.items()
        if any(value != found[0] for value in found)
    }


def protocol_names(protocol: Mapping[str, Any]) -> dict[str, Any]:
    """A protocol with its fields named for people."""
    return {_NAMES.get(key, key): value for key, value in protocol.items()}


def _compared(record: Record) -> Compared:
    with damage_named(record.folder):
        head = headline(record)
        method = record.manifest["method"]
        name = f"{record.folder.resolve().name}: {head.bits} {method['name']}"
        return Compared(name, record, head)


def _protocol(result: Compared) -> dict[str, Any]:
    manifest, head = result.record.manifest, result.head
    data = manifest["request"].get("data")
    on = head.on if data is None else f"{head.on} ({data})"
    return {**manifest["protocol"], "measure": head.measure, "on": on}


def _ranked(results: Sequence[Compared]) -> list[Compared]:
    return sorted(results, key=lambda result: result.head.after.value, reverse=True)


def _apart(ordered: Sequence[Compared]) -> bool:
    """Whether the first is better than the second by more than the intervals allow for chance."""
    return len(ordered) > 1 and ordered[0].head.after.low > ordered[1].head.after.high
