"""Learning rates over a run, and runs of other lengths."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dreamquant.methods import METHODS
from dreamquant.methods.method import Preset
from dreamquant.recovery.train import Train
from dreamquant.training.decay import Cosine, Exponential, Steps


def method(alone=100, observe=40, iterations=900, decay=None, student_decay=None):
    """One that stands in for all: a generator, and a student that learns from it."""
    return METHODS["gdfq"].with_numbers(
        Preset(
            images={"alone": alone, "observe": observe, "decay": decay or Steps((300, 600))},
            recovery={
                "Train": {"iterations": iterations, "decay": student_decay or Steps((200, 500))}
            },
        )
    )


# ------------------------------------------------------------------------------ steps


@pytest.mark.parametrize(
    ("step", "factor"),
    [(0, 1), (299, 1), (300, 0.1), (301, 0.1), (599, 0.1), (600, 0.01), (999, 0.01)],
)
def test_steps_fall_at_milestones(step, factor):
    assert Steps((300, 600)).factor(step, 1000) == pytest.approx(factor)


def test_exponential_rates_fall_as_often_over_any_length():
    decay = Exponential(0.5, every=100)
    assert [decay.factor(step, 400) for step in (0, 99, 100, 399)] == [1, 1, 0.5, 0.125]
    assert decay.stretched(0.1).factor(39, 40) == 0.125
    assert decay.stretched(1e-9).every == 1


def test_without_milestones_rates_stand():
    assert {Steps(()).factor(step, 1000) for step in range(1000)} == {1}


def test_milestones_may_coincide():
    assert Steps((5, 5)).factor(4, 9) == pytest.approx(1)
    assert Steps((5, 5)).factor(5, 9) == pytest.approx(0.01)


# ----------------------------------------------------------------------------- cosine


def test_a_cosine_begins_at_the_rate_and_ends_near_nothing():
    assert Cosine().factor(0, 1000) == pytest.approx(1)
    assert Cosine().factor(500, 1000) == pytest.approx(0.5)
    factors = [Cosine().factor(step, 1000) for step in range(1000)]
    assert 0 < factors[-1] < 1e-5
    assert factors == sorted(factors, reverse=True)


def test_it_rises_linearly_first_and_falls_meanwhile():
    factors = [Cosine(rise=9).factor(step, 900) for step in range(900)]
    for step in range(12):
        fall = 0.5 * (1 + math.cos(math.pi * step / 900))
        assert factors[step] == pytest.approx(min(1.0, (step + 1) / 10) * fall)
    assert factors.index(max(factors)) == 9
    assert factors[9:] == sorted(factors[9:], reverse=True)


@pytest.mark.parametrize("total", [1, 2, 10, 1000])
@pytest.mark.parametrize("decay", [Cosine(), Cosine(rise=9), Steps((3, 5))], ids=repr)
def test_factors_are_above_0_and_at_most_1(decay, total):
    assert all(0 < decay.factor(step, total) <= 1 for step in range(total))


# ----------------------------------------------------------------------------- length


@pytest.mark.parametrize(
    ("iterations", "observe", "alone", "learns", "milestones", "student_milestones", "rise"),
    [
        (1000, 40, 100, 900, (300, 600), (200, 500), 9),
        (2000, 80, 200, 1800, (600, 1200), (400, 1000), 18),
        (500, 20, 50, 450, (150, 300), (100, 250), 4),
        (10, 1, 1, 9, (3, 6), (2, 5), 1),
        (2, 1, 1, 1, (1, 1), (1, 1), 1),
        (1, 1, 1, 0, (1, 1), (1, 1), 1),
    ],
)
def test_every_length_scales(
    iterations, observe, alone, learns, milestones, student_milestones, rise
):
    scaled = method().lasting(iterations)
    assert scaled == method(alone, observe, learns, Steps(milestones), Steps(student_milestones))
    assert scaled.iterations == iterations
    assert Cosine(rise=9).stretched(iterations / 1000) == Cosine(rise=rise)


def test_what_is_absent_stays_absent():
    scaled = method(alone=0, observe=0, decay=Steps(())).lasting(7)
    assert (scaled.images.alone, scaled.images.observe) == (0, 0)
    assert scaled.images.decay == Steps(())
    assert scaled.iterations == 7


@given(iterations=st.integers(2, 10**6))
@settings(max_examples=60, deadline=None)
def test_a_scaled_method_keeps_its_order_and_its_rates(iterations):
    scaled = method().lasting(iterations)
    images, train = scaled.images, scaled.recovery[-1]
    assert scaled.iterations == iterations == images.alone + train.iterations
    assert 1 <= images.observe <= images.alone < iterations
    assert all(1 <= milestone <= iterations for milestone in images.decay.at)
    assert list(images.decay.at) == sorted(images.decay.at)
    assert (train.batch, train.lr) == (method().recovery[-1].batch, method().recovery[-1].lr)


@given(lengths=st.lists(st.integers(50, 500), min_size=1, max_size=4), more=st.integers(0, 2000))
@settings(max_examples=60, deadline=None)
def test_several_trainings_share_a_length(lengths, more):
    trainings = tuple(Train([], iterations=length) for length in lengths)
    several = replace(method(), recovery=trainings)
    wanted = 10 * len(lengths) + more
    assert several.lasting(wanted).iterations == wanted


def test_its_own_length_changes_nothing():
    assert method().lasting(1000) == method().lasting(None) == method()
    assert method().lasting(300).lasting(300) == method().lasting(300)
