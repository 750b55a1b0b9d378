"""The picture of a comparison: what each method reaches over the seconds it takes."""

from __future__ import annotations

import io
import statistics
from collections.abc import Sequence

from dreamquant.report.field import Field, Group

_TEACHER, _POINT, _LEADER = "#8a8a8a", "#1f5fa8", "#c4c4c4"
_LINE = 0.036  # height of a name, of the panel's


def chart(field: Field) -> bytes:
    """An SVG with one panel a group: means as dots, standard deviations as whiskers."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    # Equal results give equal bytes.
    with rc_context({"svg.hashsalt": "dreamquant", "svg.fonttype": "none"}):
        count = len(field.groups)
        figure = Figure(figsize=(8, 4.2 * count), layout="constrained")
        for axes, group in zip(
            figure.subplots(count, 1, squeeze=False)[:, 0], field.groups, strict=True
        ):
            _panel(axes, group)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


def _panel(axes, group: Group) -> None:  # type: ignore[no-untyped-def]
    for row in group.rows:
        seconds = statistics.fmean(row.seconds)
        axes.errorbar(seconds, row.mean, yerr=row.deviation, fmt="o", color=_POINT, capsize=3)
    if group.teacher is not None:
        axes.axhline(group.teacher, color=_TEACHER, linestyle="--", linewidth=1)
    axes.set_title(group.title, fontsize=10)
    axes.set_xlabel("seconds, everything included")
    axes.set_ylabel(f"{group.measure}, %")
    axes.margins(x=0.08, y=0.08)
    axes.spines[["top", "right"]].set_visible(False)
    _name(axes, group)


def _name(axes, group: Group) -> None:  # type: ignore[no-untyped-def]
    """Write the methods' names beside the panel, each with a line to its dot."""
    low, high = axes.get_ylim()
    rows = sorted(group.rows, key=lambda row: row.mean)
    wanted = [(row.mean - low) / (high - low) for row in rows]
    for row, height in zip(rows, apart(wanted, _LINE), strict=True):
        axes.annotate(
            row.method,
            (statistics.fmean(row.seconds), row.mean),
            xytext=(1.03, height),
            textcoords="axes fraction",
            fontsize=7,
            va="center",
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": _LEADER, "linewidth": 0.5},
        )


def apart(wanted: Sequence[float], least: float) -> list[float]:
    """Positions in [0, 1] near the wanted ones, in their order, at least ``least`` apart.

    Args:
        wanted: ascending positions in [0, 1].
        least: distance; less where so many do not fit.
    """
    least = min(least, 1 / max(len(wanted) - 1, 1))
    found: list[float] = []
    for position in wanted:
        found.append(max(position, found[-1] + least) if found else position)
    limit = 1.0
    for index in reversed(range(len(found))):
        found[index] = min(found[index], limit)
        limit = found[index] - least
    return found
