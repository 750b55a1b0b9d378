"""What a reader has to know before trusting a result, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from dreamquant.evaluation.majority import LIMIT
from dreamquant.report.headline import Headline, change
from dreamquant.report.read import Record
from dreamquant.report.wording import class_name, sentence, site_name
from dreamquant.results.floats import in_float, remedy

_LOW_AGREEMENT = 80.0  # percent
_LARGE_LOSS = 5.0  # points
_SHORT = 300  # batches that the student learns from; the quick schedule has 480
_UNLEARNED = 0.5  # mean probability of the class that was asked for
_WELL_REGAINED = 50.0  # percent of what rounding lost
_NARROW = 0.8  # share of the largest entropy that the classes of the images could have
_CLIPPED = 0.05  # share of an activation's values
_SENSITIVE = 10.0  # points of agreement lost by rounding one place alone
_FEW = 1000  # images


@dataclass(frozen=True)
class Finding:
    """One thing to know.

    Attributes:
        level: ``warning`` where the result may be worse than it looks, else ``note``.
        what: it is.
        remedy: what to do; empty where there is nothing to do.
    """

    level: Literal["warning", "note"]
    what: str
    remedy: str = ""


def findings(record: Record, head: Headline) -> list[Finding]:
    """Warnings first, then notes."""
    found = [
        *_float(record),
        *_answers(record, head),
        *_schedule(record),
        *_images(record, head),
        *_layers(record),
        *_protocol(record, head),
    ]
    return sorted(found, key=lambda finding: finding.level != "warning")


def _float(record: Record) -> Iterator[Finding]:
    left = in_float(record.manifest["coverage"]) if record.manifest["scheme"] else None
    if left and left.warning:
        yield Finding(
            "warning",
            f"{left.warning}: {left}.",
            f"{remedy(record.manifest['protocol']['placement'])}.",
        )


def _answers(record: Record, head: Headline) -> Iterator[Finding]:
    lost = change(record)
    if lost is not None and lost.value <= -_LARGE_LOSS:
        yield Finding(
            "warning",
            f"The network lost {-lost.value:.1f} points of accuracy.",
            "Try more bits, --first-last 8, another method, or a longer schedule.",
        )
    if head.agreement.value < _LOW_AGREEMENT:
        yield Finding(
            "warning",
            f"Its agreement with the original is only {head.agreement.value:.1f} % on {head.on}.",
            "Try more bits, --first-last 8, another method, or a longer schedule.",
        )
    said = record.manifest["agreement"].get("remark")  # only where agreement says little
    if said:
        yield Finding("warning", sentence(said["what"]), sentence(said["remedy"]))
    if head.regained is not None and head.regained < 0:
        yield Finding(
            "warning",
            "Training gave a worse result than rounding alone, by "
            f"{(head.rounded.value - head.after.value) if head.rounded else 0:.1f} points.",
            "The schedule is too short for this method, or its learning rate too high.",
        )


def _schedule(record: Record) -> Iterator[Finding]:
    timings = record.manifest["timings"]
    if why := timings.get("ended_early"):  # earlier versions did not tell
        yield Finding(
            "note",
            f"The run ended early, {why}: this is the best student after {timings['iterations']} "
            "steps.",
            "More time may give a better one.",
        )
    trained = [part for part in record.manifest["method"]["recovery"] if part["part"] == "Train"]
    learning = sum(part["iterations"] for part in trained)
    if trained and learning < _SHORT:
        yield Finding(
            "warning",
            f"The student learned for only {learning} batches.",
            "Leave --iterations and --budget out, or give more; --preset paper is the "
            "published schedule.",
        )


def _images(record: Record, head: Headline) -> Iterator[Finding]:
    samples = record.analysis.get("samples") or []
    if any(sample["class"] is not None for sample in samples):
        mean = sum(sample["confidence"] for sample in samples) / len(samples)
        if mean < _UNLEARNED:
            yield Finding(
                "note" if (head.regained or 0) > _WELL_REGAINED else "warning",
                f"The images below do not show their classes clearly: the original network gives "
                f"these classes a probability of {100 * mean:.0f} % on average.",
                "Some methods make images near a class boundary on purpose; others need more "
                "iterations.",
            )
    diversity = record.manifest["diversity"]
    if diversity and diversity["label_entropy"] < _NARROW:
        yield Finding(
            "warning",
            "Some classes hardly occur among the synthetic images: the balance of classes is "
            f"{100 * diversity['label_entropy']:.0f} % of the best possible.",
            "Try another seed or a longer schedule.",
        )


def _layers(record: Record) -> Iterator[Finding]:
    sites = record.analysis.get("sites", [])
    if not sites:
        return
    yield from _clipping([site for site in sites if site["kind"] != "weight"])
    constant = record.analysis.get("constant_agreement")  # earlier versions did not measure it
    if constant is not None and constant > LIMIT:
        yield Finding(
            "note",
            "The sensitivity of layers says little here: a network that always gives the same "
            f"answer would agree on {constant:.1f} % of {record.analysis['on']}.",
            "Compare layers by their signal-to-noise ratio instead.",
        )
    yield from _sensitivity([site for site in sites if site["alone"]], record.analysis["on"])


def _clipping(sites: list[dict[str, Any]]) -> Iterator[Finding]:
    found = [(site["below"] + site["above"], site_name(site)) for site in sites]
    found = sorted((entry for entry in found if entry[0] > _CLIPPED), reverse=True)
    if found:
        share, name = found[0]
        yield Finding(
            "warning",
            f"{100 * share:.1f} % of the values at the {name} are clipped{_others(found)}.",
            "--ranges ema covers all observed values; --ranges learned clips some values to "
            "get finer steps.",
        )


def _sensitivity(sites: list[dict[str, Any]], images: str) -> Iterator[Finding]:
    found = [site for site in sites if _changed(site) > _SENSITIVE]
    if found:
        worst = max(found, key=_changed)
        yield Finding(
            "warning",
            f"Rounding only the {site_name(worst)} reduces the agreement with the original on "
            f"{images} by {_changed(worst):.0f} %{_others(found)}.",
            "Give activations more bits."
            if worst["kind"] not in ("weight", "input")
            else f"Give it more bits: --override '{worst['layer']}=w8a8'.",
        )


def _changed(site: dict[str, Any]) -> float:
    return 100.0 - float(site["alone"]["agreement"])


def _others(found: Sequence[object]) -> str:
    count = len(found) - 1
    return (
        f"; {count} other place{'s' * (count > 1)} also exceed{'s' * (count == 1)} the limit"
        if count
        else ""
    )


def _protocol(record: Record, head: Headline) -> Iterator[Finding]:
    manifest = record.manifest
    layers = manifest["coverage"]["layers"] if manifest["scheme"] else []
    ends = [layer["weight_bits"] for layer in (*layers[:1], *layers[-1:])]
    if min(ends, default=8) < 8:
        yield Finding(
            "note",
            f"The first and the last layer have {' and '.join(str(bits) for bits in ends)} bits. "
            "In most networks they are the most sensitive layers and contain few of the weights.",
            "--first-last 8 often gives better answers at a small cost.",
        )
    if head.measure == "agreement":
        yield Finding(
            "note",
            "No number here is an accuracy: without labels, one can only measure how often "
            "the quantized network gives the same output as the original.",
            "Give labelled images with --data; they are used only for measuring.",
        )
    n = int(str(manifest["agreement"]["on"]).split()[0])
    if n < _FEW:
        yield Finding(
            "note",
            f"{n} images are few, so the intervals are wide.",
            "Give more images with --data.",
        )
    if not record.analysis:
        yield Finding(
            "note",
            "This result was made by a version that did not analyse layers.",
            "Quantize again to see ranges, sensitivity and histograms.",
        )
    yield Finding("note", "This is one run with one seed; another seed gives another result.")


def worst_classes(record: Record, count: int = 10) -> list[dict[str, Any]]:
    """The classes that lost most right answers, by name."""
    classes = (record.analysis.get("answers") or {}).get("classes", [])
    ordered = sorted(classes, key=lambda entry: entry["student"] - entry["teacher"])
    return [
        entry | {"name": class_name(record.manifest, entry["class"])} for entry in ordered[:count]
    ]
