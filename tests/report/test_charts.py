"""Scales, ticks, and charts that are well-formed for any data."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest

from dreamquant.report import charts
from dreamquant.report.charts import Column, Estimate
from dreamquant.report.svg import Scale, element, short, ticks


def test_elements_are_escaped():
    assert (
        element("text", "<&", class_="a", data_tip='"\n', x=1.5, y=None)
        == '<text class="a" data-tip="&#34;\n" x="1.5">&lt;&amp;</text>'
    )


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 100, [0, 50, 100]),
        (0.2, 1, [0.2, 0.4, 0.6, 0.8, 1.0]),
        (-3, 3, [-2, 0, 2]),
        (5, 5, [5]),
        (0, float("inf"), [0]),
    ],
)
def test_ticks_are_round(low, high, expected):
    assert ticks(low, high) == pytest.approx(expected)


def test_scales_and_short_numbers():
    assert Scale(0, 10, 100, 200)(5) == 150
    assert Scale(3, 3, 100, 200)(3) == 100
    assert [short(value) for value in (0, 1e-15, 1234.5678, 0.00001234)] == [
        "0",
        "0",
        "1235",
        "1.234e-5",
    ]


def test_curves_are_thinned_to_means():
    points = [(float(i), float(i % 2)) for i in range(1, 1001)]
    thinned = charts.thinned(points)
    assert len(thinned) <= 300
    assert thinned[-1][0] == 1000
    assert {value for _, value in thinned[:-1]} <= {0.5}


@pytest.mark.parametrize(
    "chart",
    [
        charts.curve([(1.0, 2.0)], "one point", 1),
        charts.curve([(1.0, 2.0), (2.0, -1e9)], "two", 2, unit=" %", dots=True),
        charts.columns([], "none", " %"),
        charts.columns([Column("a & b", None, 0), Column("c", 0.0, 1)], "nothing", " dB"),
        charts.histogram([0] * 128, -4, 3, "empty", 0),
        charts.histogram([1] * 256, 0, 255, "full", 1),
        charts.interval_chart([Estimate("x" * 99, 0.0, 0.0, 100.0)], "wide"),
    ],
)
def test_charts_are_well_formed(chart):
    root = ET.fromstring(str(chart))
    assert root.get("role") == "img"
    assert root.get("aria-label")
    assert "nan" not in str(chart)


def test_sparse_histograms_are_coarser():
    def corners(bins):
        return str(charts.histogram(bins, 0, 7, "", 0)).count("L")

    assert corners([100] * 128) == 2 * 128 + 1
    assert corners([1] * 128) == 2 * 32 + 1
