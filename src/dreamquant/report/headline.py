"""Did it work: the figures before and after, in numbers and in words."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dreamquant.evaluation.intervals import Z95, wilson
from dreamquant.report.charts import Estimate
from dreamquant.report.read import Record
from dreamquant.report.wording import size
from dreamquant.results.scores import main_score
from dreamquant.results.storage import storage_of

_MEASURES = {"top-1": "accuracy"}


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
        measure: ``accuracy``, ``agreement``, or the score of another task, such as ``mIoU``.
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
            return "Trained without data to imitate another network, in full precision"
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
    score = main_score(manifest["accuracy"]["student"])
    before, rounded, after = _accuracies(manifest) if score else _agreements(record, agreement)
    network = Path(manifest["network"]["name"]).name
    on = str(manifest["agreement"]["on"]).removesuffix(" given")
    measure = "agreement" if score is None else _MEASURES.get(score.name, score.name)
    bits = manifest["protocol"]["bits"]
    means = manifest["agreement"].get("means")  # a classifier's record has none
    sentence = (
        _with_labels(before, after, on, measure) if before else _without_labels(after, on, means)
    )
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


def _estimate(name: str, value: float, ci95: Sequence[float] | None) -> Estimate:
    low, high = ci95 or (value, value)
    return Estimate(name, float(value), float(low), float(high))


def _scored(name: str, measured: Mapping[str, Any] | None) -> Estimate | None:
    score = main_score(measured)
    return None if score is None else _estimate(name, score.value, score.ci95)


def _accuracies(manifest: Mapping[str, Any]) -> tuple[Estimate | None, Estimate | None, Estimate]:
    accuracy = manifest["accuracy"]
    after = _scored(_result_name(manifest), accuracy["student"])
    assert after is not None  # else there would be agreement alone
    return (
        _scored("original, full precision", accuracy["teacher"]),
        _scored("rounded only, nothing learned", accuracy["ranges_only"]),
        after,
    )


def _result_name(manifest: Mapping[str, Any]) -> str:
    quantized = manifest["scheme"] is not None
    return "quantized, recovered without data" if quantized else "another, trained without data"


def _agreements(record: Record, after: Estimate) -> tuple[None, Estimate | None, Estimate]:
    measured = record.manifest["accuracy"]["ranges_only"] or record.analysis.get("rounded")
    rounded = measured and _estimate(
        "rounded only, nothing learned", measured["agreement"], measured["ci95"]
    )
    final = Estimate(_result_name(record.manifest), after.value, after.low, after.high)
    return None, rounded, final


def _agreement(agreement: Mapping[str, Any]) -> Estimate:
    percent, n = float(agreement["percent"]), int(str(agreement["on"]).split()[0])
    low, high = agreement.get("ci95") or wilson(round(percent * n / 100), n)
    return Estimate("agreement with the original", percent, low, high)


def _with_labels(before: Estimate, after: Estimate, on: str, measure: str) -> str:
    if measure != "accuracy":
        return (
            f"Its {measure} is {after.value:.2f} % on {on}; that of the original network is "
            f"{before.value:.2f} %."
        )
    return (
        f"It names the right class for {after.value:.2f} % of {on}; "
        f"the original network does for {before.value:.2f} %."
    )


def _without_labels(after: Estimate, on: str, means: str | None) -> str:
    if means is not None:
        return (
            f"Its agreement with the original network is {after.value:.2f} % on {on}: {means}. "
            "No truth was given, so nothing is known of how often either is right."
        )
    return (
        f"It gives the same answer as the original network on {after.value:.2f} % of {on}. "
        "No labels were given, so this is agreement with the original and not an accuracy."
    )
