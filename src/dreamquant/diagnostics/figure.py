"""Plots a run's diagnostics with matplotlib: one panel for each claim of a paper."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dreamquant.errors import ResultError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SYNTHETIC, _REAL, _NOISE, _PALE = "#1f5fa8", "#2f8f4e", "#8a8a8a", "#dce6f2"
_WINDOW = 7  # number of values in a moving average
_PERTURBED = {"views": "image altered", "weights": "weights noisy"}


def require_matplotlib(what: str = "diagnostics", where: str = "--diagnostics") -> None:
    """Check that matplotlib can be imported.

    Args:
        what: name of the plots, in the plural, for the error.
        where: option that requests them, for the error.

    Raises:
        ResultError: matplotlib is not installed, or does not load.
    """
    try:
        import matplotlib.figure  # noqa: F401
    except Exception as error:  # code of another project may raise anything
        raise ResultError(
            f"{what} are drawn by matplotlib, which cannot be used: {error}",
            where=where,
            remedy="pip install 'dreamquant[report]'",
        ) from error


def picture(found: Mapping[str, Any], title: str) -> bytes:
    """A PNG with six panels.

    Args:
        found: content of ``diagnostics.json``.
        title: title that identifies the run.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(15, 9))
    figure.suptitle(title, fontsize=14)
    places = {"left": 0.05, "right": 0.985, "top": 0.88, "bottom": 0.1, "wspace": 0.26}
    panels = figure.subplots(2, 3, gridspec_kw={**places, "hspace": 0.5})
    _gradient(panels[0, 0], found["dynamics"])
    _similarity(panels[0, 1], found["dynamics"])
    _adaptability(panels[0, 2], found["adaptability"])
    _spread(panels[1, 0], found["attention"])
    _mode_gap(panels[1, 1], found["attention"])
    _inconsistency(panels[1, 2], found["inconsistency"])
    for panel in panels.flat:
        panel.spines[["top", "right"]].set_visible(False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=80)
    return buffer.getvalue()


def _explain(panel: Axes, claim: str, reading: str, x: str, y: str) -> None:
    panel.set_title(f"{claim}\n", fontsize=12, fontweight="bold", loc="left")
    panel.text(0, 1.03, reading, transform=panel.transAxes, fontsize=10, color="#505050")
    panel.set_xlabel(x)
    panel.set_ylabel(y)


def _legend(panel: Axes) -> None:
    # Below the axis, where the text covers no data.
    panel.legend(
        loc="upper center", bbox_to_anchor=(0.45, -0.15), ncols=3, frameon=False, fontsize=9
    )


def _over_time(
    panel: Axes, dynamics: Mapping[str, Any], readings: Sequence[tuple[int, float]]
) -> None:
    if not dynamics["iteration"]:
        panel.text(0.5, 0.5, "this method trains no images", ha="center")
        return
    iterations, values = [list(part) for part in zip(*readings, strict=True)] or [[], []]
    panel.plot(iterations, values, color=_SYNTHETIC, alpha=0.35, linewidth=1, label="each reading")
    panel.plot(
        iterations, _smoothed(values), color=_SYNTHETIC, linewidth=2, label=f"mean of {_WINDOW}"
    )
    start = dynamics["student_learns_from"]
    panel.axvline(start, color=_NOISE, linestyle=":", label="student starts to learn")
    panel.set_xlim(0, max(dynamics["iteration"]))
    _legend(panel)


def _smoothed(values: Sequence[float]) -> list[float]:
    """The mean over a centred window, narrower at both ends."""
    half = _WINDOW // 2
    windows = (values[max(i - half, 0) : i + half + 1] for i in range(len(values)))
    return [sum(window) / len(window) for window in windows]


def _gradient(panel: Axes, dynamics: Mapping[str, Any]) -> None:
    readings = zip(dynamics["iteration"], dynamics["gradient_norm"], strict=True)
    _over_time(panel, dynamics, list(readings))
    panel.set_ylim(bottom=0)
    _explain(
        panel,
        "AGM: does the generator stop learning?",
        "falling towards 0: its updates stop",
        "iteration",
        "norm of the generator's gradient",
    )


def _similarity(panel: Axes, dynamics: Mapping[str, Any]) -> None:
    readings = zip(dynamics["iteration"], dynamics["batch_similarity"], strict=True)
    _over_time(panel, dynamics, [(i, value) for i, value in readings if value is not None])
    _explain(
        panel,
        "AGM: do batches become similar?",
        "rising towards 1: images of a class hardly change over time",
        "iteration",
        "cosine of features, batch to batch",
    )


def _adaptability(panel: Axes, found: Mapping[str, Any]) -> None:
    edges, counts = found["edges"], found["counts"]
    whole = max(sum(counts), 1)
    lower, upper = found["lower"], found["upper"]
    panel.axvspan(lower, upper, color=_PALE, label=f"band of {found['bounds_of']}")
    shares = [100 * count / whole for count in counts]
    panel.stairs(shares, edges, fill=True, color=_SYNTHETIC, label="synthetic images")
    for boundary in (lower, upper):
        panel.axvline(boundary, color="black", linewidth=1)
        panel.text(boundary, 1, f" {boundary:g}", transform=panel.get_xaxis_transform(), va="top")
    panel.set_xlim(0, 1)
    panel.set_ylim(0, 1.15 * max(shares))
    _legend(panel)
    _explain(
        panel,
        "AdaDFQ: neither too hard nor too easy?",
        f"too hard {found['below']:.0%}, within the band {found['within']:.0%}, "
        f"too easy {found['above']:.0%}",
        "H′: 0 = networks differ in one class, 1 = they agree",
        "fraction of images, %",
    )


def _spread(panel: Axes, attention: Mapping[str, Any]) -> None:
    synthetic, real = attention["synthetic"]["per_class"], attention["real"]
    classes = list(synthetic)
    panel.bar(classes, list(synthetic.values()), color=_SYNTHETIC, label="synthetic images")
    if real is not None:
        known = {label: real["per_class"][label] for label in classes if label in real["per_class"]}
        panel.plot(
            list(known),
            list(known.values()),
            "D",
            color=_REAL,
            markeredgecolor="white",
            markersize=8,
            label="real images",
        )
    panel.set_ylim(bottom=0)
    _legend(panel)
    _explain(
        panel,
        "ACQ: does attention vary within a class?",
        "near 0: attention is at the same place in all images of a class",
        "class predicted by the teacher",
        "spread of centres, relative to the image side",
    )


def _mode_gap(panel: Axes, attention: Mapping[str, Any]) -> None:
    kinds = {"synthetic images": "synthetic", "real images": "real"}
    known = {name: attention[kind]["mode_gap"] for name, kind in kinds.items() if attention[kind]}
    bars = panel.bar(list(known), list(known.values()), color=[_SYNTHETIC, _REAL], width=0.5)
    panel.bar_label(bars, fmt="%.3g", padding=2)
    panel.margins(x=0.3, y=0.12)
    _explain(
        panel,
        "ACQ: is attention equal in both modes?",
        "0: equal attention maps in evaluation and training mode",
        "",
        "squared difference of attention maps",
    )


def _inconsistency(panel: Axes, found: Mapping[str, Any]) -> None:
    measures = [(by, what) for by in ("views", "weights") for what in ("feature", "prediction")]
    looks = {"noise": ("X", _NOISE), "synthetic": ("o", _SYNTHETIC), "real": ("D", _REAL)}
    for place, (kind, (marker, colour)) in enumerate(looks.items()):
        if found[kind] is not None:
            values = [found[kind][by][what] for by, what in measures]
            # A separate line for each kind, because equal values would hide each other.
            rows = [row + 0.22 * (place - 1) for row in range(len(measures))]
            panel.plot(values, rows, marker, color=colour, markersize=8, label=f"{kind} images")
    panel.set_yticks(range(len(measures)), [f"{what}s,\n{_PERTURBED[by]}" for by, what in measures])
    panel.set_xscale("log")
    panel.invert_yaxis()
    for row in range(1, len(measures)):
        panel.axhline(row - 0.5, color="#e4e4e4", linewidth=1)
    _legend(panel)
    _explain(
        panel,
        "RIS: are the teacher's outputs robust?",
        "further left: more robust against a perturbation",
        "inconsistency: 1 − cosine, or L1 of probabilities",
        "",
    )
