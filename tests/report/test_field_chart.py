"""The chart of a comparison."""

from itertools import pairwise

import pytest

from dreamquant.report.field import Field, Group, Row
from dreamquant.report.field_chart import apart, chart


@pytest.mark.parametrize("wanted", [[0.1, 0.5, 0.9], [0.5] * 6, [0.0, 0.98, 0.99, 1.0], []])
def test_names_keep_their_distance_and_order(wanted):
    found = apart(wanted, 0.1)
    gaps = [b - a for a, b in pairwise(found)]
    assert all(gap >= 0.1 - 1e-9 for gap in gaps)
    assert all(0 <= each <= 1 for each in found)


def test_names_that_are_far_apart_stay_where_they_are():
    assert apart([0.1, 0.5, 0.9], 0.1) == [0.1, 0.5, 0.9]


def test_more_names_than_fit_are_spread_evenly():
    assert apart([0.5] * 5, 0.4) == pytest.approx([0, 0.25, 0.5, 0.75, 1])


def test_a_chart_names_every_method_and_is_the_same_twice():
    rows = tuple(Row(f"method {i}", (80.0 + i / 9,), (), (100.0 + i,)) for i in range(30))
    field = Field((Group("net", "accuracy", 92.0, {"bits": "w3a3"}, rows),), {})
    picture = chart(field)
    assert all(f">method {i}<".encode() in picture for i in range(30))
    assert picture == chart(field)
