from __future__ import annotations

import re

import pytest

from dreamquant.jobs.progress import ProgressDisplay
from dreamquant.training.loop import run


@pytest.fixture(autouse=True)
def no_terminal(monkeypatch):
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def terminal(monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "200")


def show(training, *, quiet=False, verbose=False):
    total = training.recipe.schedule.iterations
    display = ProgressDisplay(total, done=training.iteration, quiet=quiet, verbose=verbose)
    with display:
        run(training, [display])
        display.note_accuracy("top-1 87.5 % of 8", training.iteration)


def test_elsewhere_than_on_a_terminal_each_phase_is_one_line(recipe_for, training_for, capsys):
    show(training_for(recipe_for(iterations=25, student_warmup=12)))
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "generator warms up from iteration 1 of 25",
        "student learns from iteration 12 of 25",
    ]


def test_verbose_adds_every_reading_and_accuracy(recipe_for, training_for, capsys):
    show(training_for(recipe_for(iterations=25, student_warmup=12)), verbose=True)
    lines = capsys.readouterr().err.splitlines()
    assert [line for line in lines if not line.startswith("  ")] == [
        "generator warms up from iteration 1 of 25",
        "student learns from iteration 12 of 25",
    ]
    readings = [line.strip() for line in lines if line.startswith("  ")]
    assert [line.partition(":")[0] for line in readings[:-1]] == [
        "10 of 25",
        "20 of 25",
        "25 of 25",
    ]
    assert all("images/s" in line and "BatchNormStatistics" in line for line in readings[:-1])
    assert readings[-1] == "top-1 87.5 % of 8 after 25 of 25 iterations"


def test_a_resumed_run_tells_where_it_goes_on(recipe_for, training_for, capsys):
    training = training_for(recipe_for(iterations=6, student_warmup=2))
    for _ in range(4):
        training.step()
    show(training)
    assert capsys.readouterr().err.splitlines()[0] == "student learns from iteration 5 of 6"


@pytest.mark.usefixtures("terminal")
def test_quiet_shows_nothing_even_on_a_terminal(recipe_for, training_for, capsys):
    show(training_for(recipe_for()), quiet=True)
    assert capsys.readouterr() == ("", "")


def test_quiet_shows_nothing_elsewhere(recipe_for, training_for, capsys):
    show(training_for(recipe_for()), quiet=True)
    assert capsys.readouterr() == ("", "")


@pytest.mark.usefixtures("terminal")
def test_a_terminal_shows_phase_losses_speed_and_count(recipe_for, training_for, capsys):
    show(training_for(recipe_for()))
    out, err = capsys.readouterr()
    last = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", err).splitlines()[-1]
    assert out == ""
    for part in ("student learns", "6/6", "images/s", "DifferenceEntropy", "Band", "Balance"):
        assert part in last
    # One bar for the whole run: what it prints elsewhere has no place beside it.
    assert "from iteration" not in err


@pytest.mark.usefixtures("terminal")
def test_the_latest_accuracy_stands_beside_the_bar(recipe_for, training_for, capsys):
    training = training_for(recipe_for(iterations=12))
    display = ProgressDisplay(12)

    def note(training, losses):
        if training.iteration == 8:
            display.note_accuracy("top-1 62.5 % of 8", 8)

    with display:
        run(training, [note, display])
    assert "top-1 62.5 % of 8" in capsys.readouterr().err


def test_the_bar_ends_with_an_error(recipe_for, training_for):
    display = ProgressDisplay(6)
    with pytest.raises(KeyboardInterrupt), display:
        raise KeyboardInterrupt
    assert display.bar.finished or not display.bar.live.is_started
