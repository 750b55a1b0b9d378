"""The report's charts. Marks carry what they show in ``data-tip``, for pointer and arrow keys."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from markupsafe import Markup

from dreamquant.report.svg import Scale, element, line, picture, short, ticks, words

_POINTS = 300  # of a curve; more could not be told apart
_LONGEST_NAME = 34  # letters beside an interval
_FULL_BIN = 8  # values that a histogram's bin should have on average, so that its shape is seen
_LEAST_BINS = 4  # a code
_MOST_CODES = 256


@dataclass(frozen=True)
class Estimate:
    """A measured share and its interval, in percent."""

    name: str
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Column:
    """One column of a chart: where it stands, how high it is, which series it belongs to."""

    name: str
    value: float | None
    series: int


def interval_chart(rows: Sequence[Estimate], label: str) -> Markup:
    """Dots with whiskers, one row each, on one axis of percent."""
    left, width, step = 264.0, 760.0, 34.0
    bottom = 14 + step * len(rows)
    least = min(row.low for row in rows)
    scale = Scale(_floor(least), 100.0, left, width - 60)
    marks = [
        mark
        for tick in ticks(scale.low, 100.0)
        for mark in (
            line(scale(tick), 8, scale(tick), bottom, "grid"),
            words(f"{short(tick)} %", scale(tick), bottom + 16, anchor="middle"),
        )
    ]
    for index, row in enumerate(rows):
        marks.append(_estimate(row, scale, 8 + step * (index + 0.5), left, width))
    return picture(width, bottom + 24, label, *marks, class_="chart intervals")


def _estimate(row: Estimate, scale: Scale, y: float, left: float, width: float) -> Markup:
    tip = f"{row.name}\n{row.value:.2f} %\n95 % interval {row.low:.2f} – {row.high:.2f}"
    return element(
        "g",
        words(_cut(row.name), left - 14, y + 4, anchor="end", class_="name"),
        line(scale(row.low), y, scale(row.high), y, "whisker"),
        element("circle", cx=scale(row.value), cy=y, r=6, class_="dot"),
        words(f"{row.value:.1f}", width - 50, y + 4, class_="value"),
        element("rect", x=0, y=y - 16, width=width, height=32, class_="hit"),
        class_="mark",
        data_tip=tip,
    )


def _cut(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…"


def _floor(least: float) -> float:
    """The start of an axis of percent: a round number with some room below the least value."""
    return max(0.0, 5.0 * int((least - 1) // 5)) if least >= 20 else 0.0


def curve(
    points: Sequence[tuple[float, float]],
    label: str,
    total: int,
    *,
    unit: str = "",
    reference: Estimate | None = None,
    dots: bool = False,
) -> Markup:
    """A line over iterations, that can be zoomed by dragging.

    Args:
        points: iteration and value, in order, at least one.
        label: what it shows.
        total: iterations of the run.
        unit: of the values.
        reference: a level to compare with, drawn dashed.
        dots: mark every point, where they are few.
    """
    points = thinned(points)
    width, height, left, base = 420.0, 210.0, 58.0, 176.0
    values = [y for _, y in points] + ([reference.value] if reference else [])
    low, high = _padded(min(values), max(values))
    x = Scale(0.0, float(total), left, width - 14)
    y = Scale(low, high, base, 12)
    frame = [
        mark
        for tick in ticks(low, high)
        for mark in (
            line(left, y(tick), width - 14, y(tick), "grid"),
            words(short(tick) + unit, left - 8, y(tick) + 4, anchor="end"),
        )
    ]
    return picture(
        width,
        height,
        label,
        *frame,
        *_iteration_axis(x, left, width - 14, base),
        element("g", *_plotted(points, x, y, reference, dots), class_="plot"),
        *_strips(points, x, base, unit),
        class_="chart curve",
    )


def _plotted(
    points: Sequence[tuple[float, float]],
    x: Scale,
    y: Scale,
    reference: Estimate | None,
    dots: bool,
) -> list[Markup]:
    path = "M" + "L".join(f"{x(at):.1f} {y(value):.1f}" for at, value in points)
    marks = [element("path", d=path, class_="line", vector_effect="non-scaling-stroke")]
    if dots:
        marks += [element("circle", cx=x(at), cy=y(v), r=3.5, class_="dot") for at, v in points]
    if reference is not None:
        level = y(reference.value)
        marks.append(line(x.start, level, x.end, level, "reference"))
        name = f"{reference.name} {reference.value:.1f} %"
        marks.append(words(name, x.end, level - 5, anchor="end"))
    return marks


def _iteration_axis(x: Scale, left: float, right: float, base: float) -> list[Markup]:
    shares = [index / 4 for index in range(5)]
    return [
        line(left, base, right, base, "axis"),
        *(
            words(
                f"{x.low + share * (x.high - x.low):.0f}",
                left + share * (right - left),
                base + 16,
                anchor="middle",
                data_share=share,
                data_low=x.low,
                data_high=x.high,
            )
            for share in shares
        ),
        words("iteration", (left + right) / 2, base + 31, anchor="middle"),
    ]


def _strips(
    points: Sequence[tuple[float, float]], x: Scale, base: float, unit: str
) -> list[Markup]:
    """Invisible columns, one a point, that carry its numbers."""
    edges = [
        x.start,
        *((x(a) + x(b)) / 2 for (a, _), (b, _) in pairwise(points)),
    ]
    edges.append(x.end)
    return [
        element(
            "rect",
            x=edges[index],
            y=12,
            width=max(edges[index + 1] - edges[index], 0.5),
            height=base - 12,
            class_="hit mark",
            data_tip=f"iteration {at:.0f}\n{short(value)}{unit}",
        )
        for index, (at, value) in enumerate(points)
    ]


def thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """At most 300 points, each the mean of as many neighbours."""
    size = -(-len(points) // _POINTS)
    groups = [points[start : start + size] for start in range(0, len(points), size)]
    return [(group[-1][0], sum(value for _, value in group) / len(group)) for group in groups]


def _padded(low: float, high: float) -> tuple[float, float]:
    room = (high - low) * 0.06 or abs(high) * 0.1 or 1.0
    return low - room, high + room


def columns(given: Sequence[Column], label: str, unit: str) -> Markup:
    """Columns in the order given, coloured by series; those without a value leave a gap."""
    width, height, left, base = 900.0, 200.0, 58.0, 178.0
    highest = max((column.value or 0.0 for column in given), default=0.0) or 1.0
    y = Scale(0.0, highest * 1.05, base, 10)
    room = (width - left - 6) / max(len(given), 1)
    frame = [
        mark
        for tick in ticks(0.0, highest)
        for mark in (
            line(left, y(tick), width - 6, y(tick), "grid"),
            words(f"{short(tick)}{unit}", left - 8, y(tick) + 4, anchor="end"),
        )
    ]
    bars = [
        _column(column, left + index * room, room, y, base, unit)
        for index, column in enumerate(given)
    ]
    legend = words("in the order the network runs", (left + width) / 2, height - 6, anchor="middle")
    return picture(width, height, label, *frame, *bars, legend, class_="chart columns")


def _column(column: Column, x: float, room: float, y: Scale, base: float, unit: str) -> Markup:
    shown = "not measured" if column.value is None else f"{short(column.value)}{unit}"
    top = base if column.value is None else min(y(column.value), base - 1)
    return element(
        "g",
        element(
            "rect",
            x=x + room * 0.12,
            y=top,
            width=room * 0.76,
            height=base - top,
            class_=f"bar series{column.series}",
        ),
        element("rect", x=x, y=10, width=room, height=base - 10, class_="hit"),
        class_="mark",
        data_tip=f"{column.name}\n{shown}",
    )


def histogram(bins: Sequence[int], qmin: int, qmax: int, label: str, series: int) -> Markup:
    """A distribution in steps of its grid, with the grid's codes as lines on top.

    Args:
        bins: counts; the first begins half a step below ``qmin``, the last ends as far above
            ``qmax``.
        qmin: lowest code.
        qmax: highest code.
        label: what it shows.
        series: colour.

    Raises:
        ValueError: no grid has so many codes.
    """
    if not 0 < qmax - qmin < _MOST_CODES:
        raise ValueError(f"codes {qmin} to {qmax} are no grid")
    width, height, base = 300.0, 118.0, 96.0
    x = Scale(qmin - 0.5, qmax + 0.5, 4, width - 4)
    bins = _merged(bins, qmax - qmin + 1)
    highest = max(bins, default=0) or 1
    # Square roots, so that the tails, where clipping happens, are seen beside the bulk.
    heights = [(count / highest) ** 0.5 for count in bins]
    step = (x.end - x.start) / max(len(bins), 1)
    corners = [
        f"L{x.start + (index + side) * step:.1f} {base - 84 * share:.1f}"
        for index, share in enumerate(heights)
        for side in (0, 1)
    ]
    area = f"M{x.start:.1f} {base:.1f}{''.join(corners)}L{x.end:.1f} {base:.1f}Z"
    return picture(
        width,
        height,
        label,
        element("path", d=area, class_=f"area series{series}"),
        element("path", d=_code_lines(qmin, qmax, x, base), class_="code"),
        line(x.start, base, x.end, base, "axis"),
        *_code_names(qmin, qmax, x, base),
        class_="chart histogram",
    )


def _merged(bins: Sequence[int], codes: int) -> Sequence[int]:
    """Neighbouring bins joined until most hold several values."""
    while sum(bins) < _FULL_BIN * len(bins) and len(bins) >= 2 * _LEAST_BINS * codes:
        bins = [first + second for first, second in zip(bins[::2], bins[1::2], strict=True)]
    return bins


def _code_lines(qmin: int, qmax: int, x: Scale, base: float) -> str:
    return "".join(f"M{x(code):.1f} 8V{base + 4:.0f}" for code in range(qmin, qmax + 1))


def _code_names(qmin: int, qmax: int, x: Scale, base: float) -> list[Markup]:
    every = max(1, -(-(qmax - qmin + 1) // 8))
    named = range(qmin, qmax + 1, every)
    return [words(str(code), x(code), base + 17, anchor="middle") for code in named]
