from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dreamquant.methods.schedule import Schedule

STEPS = Schedule(
    iterations=1000,
    batch=16,
    range_warmup=40,
    student_warmup=100,
    student_lr=1e-2,
    generator_lr=1e-3,
    milestones=(300, 600),
)
COSINE = replace(STEPS, decay="cosine", milestones=(), lr_warmup=9)


# ------------------------------------------------------------------------------ steps


@pytest.mark.parametrize(
    ("iteration", "factor"),
    [(0, 1), (299, 1), (300, 0.1), (301, 0.1), (599, 0.1), (600, 0.01), (999, 0.01)],
)
def test_steps_fall_at_milestones(iteration, factor):
    assert STEPS.student_rate(iteration) == pytest.approx(1e-2 * factor)
    assert STEPS.generator_rate(iteration) == pytest.approx(1e-3 * factor)


def test_without_milestones_rates_stand():
    constant = replace(STEPS, milestones=())
    assert {constant.student_rate(i) for i in range(1000)} == {1e-2}
    assert {constant.generator_rate(i) for i in range(1000)} == {1e-3}


def test_milestones_may_coincide():
    twice = replace(STEPS, milestones=(5, 5))
    assert twice.student_rate(4) == pytest.approx(1e-2)
    assert twice.student_rate(5) == pytest.approx(1e-4)


# ----------------------------------------------------------------------------- cosine


def test_the_generators_cosine_begins_at_its_rate_and_ends_near_nothing():
    assert COSINE.generator_rate(0) == pytest.approx(1e-3)
    assert COSINE.generator_rate(500) == pytest.approx(5e-4)
    assert 0 < COSINE.generator_rate(999) < 1e-8
    rates = [COSINE.generator_rate(i) for i in range(1000)]
    assert rates == sorted(rates, reverse=True)


def test_the_students_rate_rises_linearly_after_its_warm_up_and_then_falls():
    rates = [COSINE.student_rate(i) for i in range(100, 1000)]
    for taken in range(12):
        fall = 0.5 * (1 + math.cos(math.pi * taken / 900))
        assert rates[taken] == pytest.approx(1e-2 * min(1.0, (taken + 1) / 10) * fall)
    assert rates.index(max(rates)) == 9
    assert rates[9:] == sorted(rates[9:], reverse=True)
    assert COSINE.student_rate(100 + 450) == pytest.approx(5e-3)
    assert 0 < rates[-1] < 1e-7


def test_without_a_rise_the_student_begins_at_its_rate():
    assert replace(COSINE, lr_warmup=0).student_rate(100) == pytest.approx(1e-2)


@pytest.mark.parametrize("warmup", [0, 1, 999, 1000])
def test_rates_are_never_negative_while_the_student_learns(warmup):
    schedule = replace(COSINE, student_warmup=warmup)
    for iteration in range(warmup, 1000):
        assert 0 < schedule.student_rate(iteration) <= 1e-2


# ----------------------------------------------------------------------------- scaled


@pytest.mark.parametrize(
    ("iterations", "range_warmup", "student_warmup", "milestones", "lr_warmup"),
    [
        (1000, 40, 100, (300, 600), 9),
        (2000, 80, 200, (600, 1200), 18),
        (500, 20, 50, (150, 300), 4),
        (10, 1, 1, (3, 6), 1),
        (2, 1, 1, (1, 1), 1),
        (1, 1, 1, (1, 1), 1),
    ],
)
def test_every_length_scales(iterations, range_warmup, student_warmup, milestones, lr_warmup):
    scaled = replace(STEPS, lr_warmup=9).scaled(iterations)
    assert scaled == replace(
        STEPS,
        iterations=iterations,
        range_warmup=range_warmup,
        student_warmup=student_warmup,
        milestones=milestones,
        lr_warmup=lr_warmup,
    )


def test_what_is_absent_stays_absent():
    scaled = replace(STEPS, range_warmup=0, student_warmup=0, milestones=()).scaled(7)
    assert (scaled.range_warmup, scaled.student_warmup, scaled.lr_warmup) == (0, 0, 0)
    assert scaled.milestones == ()


@pytest.mark.parametrize("schedule", [STEPS, COSINE], ids=["steps", "cosine"])
@given(iterations=st.integers(2, 10**6))
@settings(max_examples=60, deadline=None)
def test_a_scaled_schedule_keeps_its_order_and_its_rates(schedule, iterations):
    scaled = schedule.scaled(iterations)
    assert 1 <= scaled.range_warmup <= scaled.student_warmup < iterations
    assert all(1 <= milestone <= iterations for milestone in scaled.milestones)
    assert list(scaled.milestones) == sorted(scaled.milestones)
    assert (scaled.batch, scaled.student_lr) == (schedule.batch, schedule.student_lr)
    assert scaled.generator_rate(0) == schedule.generator_rate(0)
    if iterations >= 1000:
        middle = iterations // 2
        assert scaled.generator_rate(middle) == pytest.approx(
            schedule.generator_rate(500), rel=1e-2
        )


def test_scaling_to_its_own_length_changes_nothing():
    assert STEPS.scaled(1000) == STEPS
    assert COSINE.scaled(300).scaled(300) == COSINE.scaled(300)
