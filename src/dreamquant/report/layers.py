"""Layer by layer: ranges, clipping, signal to noise, sensitivity, and histograms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from dreamquant.report.charts import Column, columns, histogram
from dreamquant.report.svg import short
from dreamquant.report.wording import site_name

_FIRST_SHOWN, _MOST_SHOWN = 6, 150  # histograms; those after the first can be unfolded


@dataclass(frozen=True)
class Row:
    """One site in words and numbers; texts are "–" where nothing was measured."""

    name: str
    bits: int
    range: str
    clipped: float
    sqnr: float | None
    lost: float | None
    values: int


@dataclass(frozen=True)
class Panel:
    """A chart with its title and what it tells."""

    title: str
    caption: str
    chart: Markup


@dataclass(frozen=True)
class Distribution:
    """A histogram with its words."""

    name: str
    caption: str
    chart: Markup


def rows(sites: Sequence[dict[str, Any]]) -> list[Row]:
    """A table of sites."""
    return [_row(site) for site in sites]


def _row(site: dict[str, Any]) -> Row:
    alone = site["alone"]
    return Row(
        name=site["layer"] if site["kind"] == "weight" else site_name(site),
        bits=site["bits"],
        range=_range(site),
        clipped=100 * (site["below"] + site["above"]),
        sqnr=site["sqnr"],
        lost=None if alone is None else 100 - alone["agreement"],
        values=site["values"],
    )


def _range(site: dict[str, Any]) -> str:
    """What is seen, and for activations what the grid covers."""
    if site["low"] is None or site["high"] is None:
        return "–"
    seen = f"{short(site['low'])} … {short(site['high'])}"
    if site["scale"] is None:
        return seen
    low, high = ((site[end] - site["zero_point"]) * site["scale"] for end in ("qmin", "qmax"))
    return (
        f"{seen}, grid to {short(high)}"
        if low >= 0
        else (f"{seen}, grid {short(low)} … {short(high)}")
    )


def panels(sites: Sequence[dict[str, Any]], images: str) -> list[Panel]:
    """Charts over all sites in the order that the network runs them."""
    described = [(site_name(site), 0 if site["kind"] == "weight" else 1, site) for site in sites]

    def chart(label: str, unit: str, value: Any) -> Markup:
        return columns([Column(name, value(site), n) for name, n, site in described], label, unit)

    return [
        Panel(
            "Sensitivity",
            f"Agreement that is lost when the original network rounds at this one place and "
            f"nowhere else, on {images}: of a classifier, the share of answers that change. High "
            "columns are where bits are missing.",
            chart("agreement lost by rounding only one place", " %", _changed),
        ),
        Panel(
            "Signal to noise",
            "Power of the values over the power of their rounding error, in decibels. Higher "
            "is better, and 6 dB correspond to one bit. Weights: the original's, rounded. "
            "Activations: the student's own.",
            chart("signal to quantization noise ratio", " dB", lambda site: site["sqnr"]),
        ),
        Panel(
            "Clipping",
            "Fraction of values outside the grid. A little clipping is good, because it makes"
            " the steps of all other values finer.",
            chart("fraction of clipped values", " %", lambda s: 100 * (s["below"] + s["above"])),
        ),
    ]


def _changed(site: dict[str, Any]) -> float | None:
    return None if site["alone"] is None else 100 - site["alone"]["agreement"]


def distributions(sites: Sequence[dict[str, Any]]) -> tuple[list[Distribution], list[Distribution]]:
    """Histograms: those of the most sensitive sites, and the next most in their order."""
    order = sorted(range(len(sites)), key=lambda index: _quality(sites[index]))[:_MOST_SHOWN]
    first = order[:_FIRST_SHOWN]
    shown = [_distribution(sites[index]) for index in first]
    rest = [_distribution(sites[index]) for index in sorted(order[_FIRST_SHOWN:])]
    return shown, rest


def _quality(site: dict[str, Any]) -> tuple[float, float]:
    changed = _changed(site)
    return -(changed or 0.0), site["sqnr"] if site["sqnr"] is not None else float("inf")


def _distribution(site: dict[str, Any]) -> Distribution:
    weight = site["kind"] == "weight"
    clipped = 100 * (site["below"] + site["above"])
    parts = [
        f"{site['bits']} bits",
        f"zero {100 * site['zeros']:.0f} %" if site["zeros"] else "",
        f"clipped {clipped:.2f} %" if clipped else "",
        f"one step is {short(site['scale'])}" if site["scale"] else "steps differ by channel",
    ]
    name = site_name(site)
    caption = ", ".join(part for part in parts if part)
    chart = histogram(
        site["histogram"],
        site["qmin"],
        site["qmax"],
        f"distribution at the {name} over {site['qmax'] - site['qmin'] + 1} codes: {caption}",
        0 if weight else 1,
    )
    return Distribution(name[0].upper() + name[1:], caption, chart)
