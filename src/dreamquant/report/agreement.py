"""Agreement over what it costs: bytes that ``--bits auto`` looked at, seconds of stages."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from markupsafe import Markup

from dreamquant.report.svg import Scale, element, line, picture, short, ticks, words
from dreamquant.report.wording import size

_WIDTH, _HEIGHT, _LEFT, _BASE = 640.0, 240.0, 62.0, 196.0


class _Mark(NamedTuple):
    """A point: where, how high in percent, what it says, and whether it was taken."""

    at: float
    value: float
    tip: str
    taken: bool


def size_chart(points: Sequence[tuple[float, float]], taken: float) -> Markup:
    """Agreement over size, with the point that was taken marked.

    Args:
        points: bytes and percent, the smallest first.
        taken: bytes of the point that was taken.
    """
    marks = [
        _Mark(
            at,
            value,
            f"{size(at)}\n{value:.1f} %" + ("\ntaken" if at == taken else ""),
            at == taken,
        )
        for at, value in points
    ]
    return _chart(marks, marks, size, "agreement over size", "size of its tensors")


def stage_chart(phases: Sequence[Mapping[str, Any]]) -> Markup | None:
    """Agreement after each stage over seconds, and the best so far; ``None`` without stages.

    Args:
        phases: as the manifest has them.
    """
    marks: list[_Mark] = []
    best: list[_Mark] = []
    seconds = 0.0
    for phase in phases:
        seconds += phase["seconds"]
        found = phase.get("found")
        if found is None or "agreement" not in found:
            continue
        tip = f"{found['stage']}\n{_seconds(seconds)}\n{found['agreement']:.1f} %"
        mark = _Mark(seconds, found["agreement"], tip, found["kept"])
        marks.append(mark)
        best.append(mark if mark.taken else mark._replace(value=best[-1].value))
    if not marks:
        return None
    return _chart(marks, best, _seconds, "agreement over seconds", "time, without measuring")


def _seconds(value: float) -> str:
    return f"{value:.0f} s"


def _chart(
    marks: Sequence[_Mark],
    through: Sequence[_Mark],
    shown: Callable[[float], str],
    label: str,
    axis: str,
) -> Markup:
    ends = [mark.at for mark in marks]
    x = Scale(min(ends), max(max(ends), min(ends) + 1), _LEFT, _WIDTH - 24)
    y = Scale(max(0.0, min(mark.value for mark in marks) - 2), 100.0, _BASE, 14)
    across = [
        mark
        for tick in ticks(y.low, 100.0)
        for mark in (
            line(_LEFT, y(tick), _WIDTH - 24, y(tick), "grid"),
            words(f"{short(tick)} %", _LEFT - 8, y(tick) + 4, anchor="end"),
        )
    ]
    along = [
        words(shown(tick), x(tick), _BASE + 18, anchor="middle") for tick in ticks(x.low, x.high)
    ]
    path = "M" + "L".join(f"{x(mark.at):.1f} {y(mark.value):.1f}" for mark in through)
    return picture(
        _WIDTH,
        _HEIGHT,
        label,
        *across,
        line(_LEFT, _BASE, _WIDTH - 24, _BASE, "axis"),
        *along,
        words(axis, (_LEFT + _WIDTH) / 2, _BASE + 36, anchor="middle"),
        element("path", d=path, class_="line"),
        *(_dot(mark, x(mark.at), y(mark.value)) for mark in marks),
        class_="chart curve",
    )


def _dot(mark: _Mark, x: float, y: float) -> Markup:
    dot = element("circle", cx=x, cy=y, r=7.0 if mark.taken else 4.0, class_="dot")
    hit = element("rect", x=x - 10, y=14, width=20, height=_BASE - 14, class_="hit")
    return element("g", dot, hit, class_="mark", data_tip=mark.tip)
