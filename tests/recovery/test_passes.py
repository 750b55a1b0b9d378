"""Forward passes that wait for each other."""

import threading

import pytest

from dreamquant.recovery.passes import advance_all, current, passes


def counting(name, log, places):
    def forward():
        for place in places:
            log.append((name, place))
            current().stop(place, f"{name}{place}")

    return forward


def test_passes_come_to_each_place_together():
    log = []
    with passes([counting("a", log, [1, 2]), counting("b", log, [1, 2])]) as both:
        assert advance_all(both) == (1, ["a1", "b1"])
        assert log == [("a", 1), ("b", 1)]
        assert advance_all(both) == (2, ["a2", "b2"])
        assert advance_all(both) is None
        assert advance_all(both) is None


def test_passes_that_part_ways_are_refused():
    with (
        passes([counting("a", [], [1]), counting("b", [], [2])]) as both,
        pytest.raises(RuntimeError, match="different places"),
    ):
        advance_all(both)


def test_what_a_pass_raises_is_raised_by_who_advances_it():
    def broken():
        raise KeyError("inside")

    with passes([broken]) as one, pytest.raises(KeyError, match="inside"):
        advance_all(one)


def test_passes_left_waiting_are_ended():
    before = threading.active_count()
    with passes([counting("a", [], [1, 2, 3])] * 5) as several:
        advance_all(several)
        assert threading.active_count() == before + 5
    assert threading.active_count() == before


def test_code_outside_is_in_no_pass():
    assert current() is None
