"""The chart of sizes that ``--bits auto`` looked at."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from dreamquant.report.svg import Scale, element, line, picture, short, ticks, words
from dreamquant.report.wording import size

_WIDTH, _HEIGHT, _LEFT, _BASE = 640.0, 240.0, 62.0, 196.0


def size_chart(points: Sequence[tuple[float, float]], taken: float) -> Markup:
    """Agreement over size, with the point that was taken marked.

    Args:
        points: bytes and percent, the smallest first.
        taken: bytes of the point that was taken.
    """
    sizes, values = zip(*points, strict=True)
    x = Scale(min(sizes), max(sizes), _LEFT, _WIDTH - 24)
    y = Scale(max(0.0, min(values) - 2), 100.0, _BASE, 14)
    across = [
        mark
        for tick in ticks(y.low, 100.0)
        for mark in (
            line(_LEFT, y(tick), _WIDTH - 24, y(tick), "grid"),
            words(f"{short(tick)} %", _LEFT - 8, y(tick) + 4, anchor="end"),
        )
    ]
    along = [
        words(size(tick), x(tick), _BASE + 18, anchor="middle") for tick in ticks(x.low, x.high)
    ]
    path = "M" + "L".join(f"{x(at):.1f} {y(value):.1f}" for at, value in points)
    curve = element("path", d=path, class_="line")
    dots = [_dot(at, value, x(at), y(value), taken) for at, value in points]
    return picture(
        _WIDTH,
        _HEIGHT,
        "agreement over size",
        *across,
        line(_LEFT, _BASE, _WIDTH - 24, _BASE, "axis"),
        *along,
        words("size of its tensors", (_LEFT + _WIDTH) / 2, _BASE + 36, anchor="middle"),
        curve,
        *dots,
        class_="chart curve",
    )


def _dot(at: float, value: float, x: float, y: float, taken: float) -> Markup:
    chosen = at == taken
    tip = f"{size(at)}\n{value:.1f} %" + ("\ntaken" if chosen else "")
    radius = 7.0 if chosen else 4.0
    dot = element("circle", cx=x, cy=y, r=radius, class_="dot")
    hit = element("rect", x=x - 10, y=14, width=20, height=_BASE - 14, class_="hit")
    return element("g", dot, hit, class_="mark", data_tip=tip)
