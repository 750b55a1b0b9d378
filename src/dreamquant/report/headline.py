"""Did it work: the figures before and after, in numbers and in words."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dreamquant.evaluation.metrics import Z95, wilson
from dreamquant.report.charts import Estimate
from dreamquant.report.read import Record
from dreamquant.report.wording import size
from dreamquant.results.storage import storage_of


@dataclass(frozen=True)
class Sizes:
    """Bytes of the network's tensors before and after."""

    full: int
    small: int
    parts: str

    @property
    def factor(self) -> float:
        """How many times smaller it became."""
        return self.full / max(self.small, 1)


@dataclass(frozen=True)
class Headline:
    """What a reader should see first.

    Attributes:
        network: its name, without folders.
        bits: as in ``w4a4``; ``float32`` of a network that was only distilled.
        measure: ``accuracy`` or ``agreement``.
        on: what it was measured on.
        before: the original; ``None`` for agreement, which is with the original.
        rounded: rounded, nothing learned.
        after: the result.
        agreement: with the original.
        sizes: in bytes.
        sentence: the above in words.
    """

    network: str
    bits: str
    measure: str
    on: str
    before: Estimate | None
    rounded: Estimate | None
    after: Estimate
    agreement: Estimate
    sizes: Sizes
    sentence: str

    @property
    def subject(self) -> str:
        """What was done, in one line."""
        if self.bits == "float32":
            return "Trained without data to do what another network does, in full precision"
        weights, _, activations = self.bits.removeprefix("w").partition("a")
        return (
            f"Quantized without training data to {weights}-bit weights and "
            f"{activations}-bit activations"
        )

    @property
    def rows(self) -> list[Estimate]:
        """The estimates that can be compared with each other."""
        return [row for row in (self.before, self.rounded, self.after) if row is not None]

    @property
    def regained(self) -> float | None:
        """How much of what rounding lost came back, in percent; ``None`` where little was lost."""
        if self.rounded is None:
            return None
        whole = 100.0 if self.before is None else self.before.value
        lost = whole - self.rounded.value
        return None if lost < 1 else 100 * (self.after.value - self.rounded.value) / lost


def headline(record: Record) -> Headline:
    """The headline of a result."""
    manifest = record.manifest
    agreement = _agreement(manifest["agreement"])
    labelled = (manifest["accuracy"]["student"] or {}).get("top1") is not None
    before, rounded, after = _accuracies(manifest) if labelled else _agreements(record, agreement)
    network = Path(manifest["network"]["name"]).name
    on = str(manifest["agreement"]["on"]).removesuffix(" given")
    measure = "accuracy" if labelled else "agreement"
    bits = manifest["protocol"]["bits"]
    sentence = _with_labels(before, after, on) if before else _without_labels(after, on)
    return Headline(
        network,
        bits,
        measure,
        on,
        before,
        rounded,
        after,
        agreement,
        sizes(manifest),
        sentence,
    )


def sizes(manifest: Mapping[str, Any]) -> Sizes:
    """Storage of the tensors; the original holds 4 bytes a number."""
    if manifest["scheme"] is None:
        count = manifest["parameters"]
        return Sizes(4 * count["teacher"], 4 * count["student"], "all of it float32")
    stored = storage_of(manifest["coverage"])
    parts = {"weights": stored.weights, "scales": stored.scales, "float": stored.left_in_float}
    told = ", ".join(f"{size(count)} {name}" for name, count in parts.items())
    return Sizes(stored.full, stored.small, told)


def change(record: Record) -> Estimate | None:
    """Accuracy after minus before in points, its interval from the same images seen by both.

    ``None`` without labels, and for results of a version that kept no answers.
    """
    answers = record.analysis.get("answers")
    if not answers or not answers["labelled"]:
        return None
    n, gained, lost = answers["n"], answers["outcomes"]["gained"], answers["outcomes"]["lost"]
    points = 100 * (gained - lost) / n
    spread = math.sqrt(max(gained + lost - (gained - lost) ** 2 / n, 0.0)) / n
    half = 100 * Z95 * spread
    return Estimate("change", points, points - half, points + half)


def _estimate(name: str, measured: Mapping[str, Any], key: str) -> Estimate:
    low, high = measured["ci95"] or (measured[key], measured[key])
    return Estimate(name, float(measured[key]), float(low), float(high))


def _accuracies(manifest: Mapping[str, Any]) -> tuple[Estimate | None, Estimate | None, Estimate]:
    accuracy = manifest["accuracy"]
    rounded = accuracy["ranges_only"]
    return (
        _estimate("original, full precision", accuracy["teacher"], "top1"),
        rounded and _estimate("rounded only, nothing learned", rounded, "top1"),
        _estimate(_result_name(manifest), accuracy["student"], "top1"),
    )


def _result_name(manifest: Mapping[str, Any]) -> str:
    quantized = manifest["scheme"] is not None
    return "quantized, recovered without data" if quantized else "another, trained without data"


def _agreements(record: Record, after: Estimate) -> tuple[None, Estimate | None, Estimate]:
    measured = record.manifest["accuracy"]["ranges_only"] or record.analysis.get("rounded")
    rounded = measured and _estimate("rounded only, nothing learned", measured, "agreement")
    final = Estimate(_result_name(record.manifest), after.value, after.low, after.high)
    return None, rounded, final


def _agreement(agreement: Mapping[str, Any]) -> Estimate:
    percent, n = float(agreement["percent"]), int(str(agreement["on"]).split()[0])
    low, high = agreement.get("ci95") or wilson(round(percent * n / 100), n)
    return Estimate("agreement with the original", percent, low, high)


def _with_labels(before: Estimate, after: Estimate, on: str) -> str:
    return (
        f"It names the right class for {after.value:.2f} % of {on}; "
        f"the original network does for {before.value:.2f} %."
    )


def _without_labels(after: Estimate, on: str) -> str:
    return (
        f"It gives the same answer as the original network on {after.value:.2f} % of {on}. "
        "No labels were given, so this is agreement with the original and not an accuracy."
    )
