"""The picture of a comparison: what each method reaches over the seconds it takes."""

from __future__ import annotations

import io
import statistics

from dreamquant.report.field import Field, Group

_TEACHER, _POINT = "#8a8a8a", "#1f5fa8"


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
        axes.annotate(
            row.method, (seconds, row.mean), xytext=(7, 3), textcoords="offset points", fontsize=8
        )
    if group.teacher is not None:
        axes.axhline(group.teacher, color=_TEACHER, linestyle="--", linewidth=1)
    axes.set_title(group.title, fontsize=10)
    axes.set_xlabel("seconds, everything included")
    axes.set_ylabel(f"{group.measure}, %")
    axes.margins(x=0.15, y=0.15)
    axes.spines[["top", "right"]].set_visible(False)
