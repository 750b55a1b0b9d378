from __future__ import annotations

import pytest

from dreamquant.errors import TrainingError
from dreamquant.jobs import budget
from dreamquant.jobs.budget import fit, parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90),
        ("90sec", 90),
        ("5m", 300),
        ("5min", 300),
        (" 5 min ", 300),
        ("5MIN", 300),
        ("1.5h", 5400),
        ("1h30m", 5400),
        ("1h 30min 10s", 5410),
        ("0.5s", 0.5),
        ("0h1s", 1),
    ],
)
def test_durations(text, seconds):
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text",
    [
        *("", "5", "min", "-5min", "5 parsecs", "5min!", "five minutes", "1:30", ".5h", "1e3s"),
        *("5m m", "nan s", "inf s", "5,5min", "0s", "0min", "9" * 400 + "s"),
    ],
)
def test_what_is_no_duration(text):
    with pytest.raises(TrainingError) as e:
        parse_duration(text)
    assert e.value.where == "--budget"
    assert e.value.remedy


class FakeTraining:
    """Iterations that take a known time by a fake clock."""

    def __init__(self, schedule, clock, warmup, learning, compiling=0.0):
        self.schedule, self.clock, self.iteration = schedule, clock, 0
        self.warmup, self.learning = warmup, learning
        self.compiling = {False: compiling, True: compiling}

    def step(self):
        learns = self.iteration >= self.schedule.student_warmup
        self.clock[0] += self.learning if learns else self.warmup
        self.clock[0] += self.compiling.pop(learns, 0)
        self.iteration += 1


@pytest.fixture
def timed(monkeypatch):
    """``timed(schedule, warmup, learning)``: a builder of runs with that many s/iteration."""
    clock = [0.0]
    monkeypatch.setattr(budget.time, "perf_counter", lambda: clock[0])
    return lambda schedule, *seconds: lambda: FakeTraining(schedule, clock, *seconds)


@pytest.mark.parametrize(
    ("warmup", "learning", "seconds", "iterations"),
    # Four iterations of each kind were timed before.
    [(1.0, 1.0, 58, 50), (1.0, 3.0, 116, 40), (0.01, 0.03, 100.16, 4000), (1.0, 3.0, 2516, 1000)],
)
def test_the_schedule_is_cut_to_the_time_there_is(
    warmup, learning, seconds, iterations, timed, schedule_for
):
    schedule = schedule_for(iterations=100, student_warmup=25, range_warmup=50)
    fitted = fit(schedule, seconds, timed(schedule, warmup, learning))
    assert fitted.iterations == pytest.approx(iterations, abs=1)
    assert fitted.student_warmup == pytest.approx(iterations / 4, abs=1)
    assert fitted.range_warmup == pytest.approx(iterations / 2, abs=1)
    takes = fitted.student_warmup * warmup
    takes += (fitted.iterations - fitted.student_warmup) * learning
    assert takes + 4 * (warmup + learning) == pytest.approx(seconds, abs=3 * learning)


def test_what_compiling_takes_is_left_out_and_comes_again(timed, schedule_for):
    schedule = schedule_for(iterations=100, student_warmup=25)
    fitted = fit(schedule, 58 + 4 * 7.0, timed(schedule, 1.0, 1.0, 7.0))
    assert fitted.iterations == 50


@pytest.mark.parametrize("seconds", [9.9, 0.0, -10.0])
def test_too_little_time_is_refused(seconds, timed, schedule_for):
    schedule = schedule_for(iterations=100, student_warmup=25)
    with pytest.raises(TrainingError, match=r"one iteration takes 1\.0 s") as e:
        fit(schedule, seconds, timed(schedule, 1.0, 1.0))
    assert e.value.where == "--budget"


def test_a_real_run_is_timed_and_thrown_away(recipe_for, training_for):
    recipe = recipe_for()
    built = []

    def build():
        built.append(training_for(recipe))
        return built[-1]

    fitted = fit(recipe.schedule, 60.0, build)
    assert fitted.iterations > 100
    assert len(built) == 1
