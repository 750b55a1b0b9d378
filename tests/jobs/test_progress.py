from __future__ import annotations

import re
from dataclasses import replace

import pytest

from dreamquant.jobs.progress import ProgressDisplay
from dreamquant.recovery.norms import reestimating
from tiny_runs import short_method, tiny_run


@pytest.fixture(autouse=True)
def no_terminal(monkeypatch):
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def terminal(monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "200")


def show(run, *, quiet=False, verbose=False):
    display = ProgressDisplay(quiet=quiet, verbose=verbose)
    with display:
        run.to_the_end(display)
        display.note_accuracy("top-1 87.5 % of 8", run.run.done)


def long_run():
    return tiny_run(short_method(alone=12, learn=13))


def test_elsewhere_than_on_a_terminal_each_phase_is_one_line(capsys):
    show(long_run())
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == ["generator warms up: 12 steps", "student learns: 13 steps"]


def test_a_phase_of_one_step_says_so(capsys):
    method = short_method()
    method = replace(method, recovery=reestimating(method.recovery, "re-estimated"))
    show(tiny_run(method))
    assert capsys.readouterr().err.splitlines()[1] == "re-estimating batch norms: 1 step"


def test_verbose_adds_every_reading_and_accuracy(capsys):
    show(long_run(), verbose=True)
    lines = capsys.readouterr().err.splitlines()
    assert [line for line in lines if not line.startswith("  ")] == [
        "generator warms up: 12 steps",
        "student learns: 13 steps",
    ]
    readings = [line.strip() for line in lines if line.startswith("  ")]
    # Every ten iterations of the run and at the end of each phase, counted within the phase.
    assert [line.partition(":")[0] for line in readings[:-1]] == [
        "10 of 12",
        "12 of 12",
        "8 of 13",
        "13 of 13",
    ]
    assert all("images/s" in line and "BatchNormStatistics" in line for line in readings[:-1])
    assert readings[-1] == "top-1 87.5 % of 8 after 25 iterations"


def test_a_resumed_run_shows_the_phase_that_it_goes_on_in(capsys):
    show(tiny_run(short_method()).steps(4))
    assert capsys.readouterr().err.splitlines() == ["student learns: 4 steps"]


@pytest.mark.usefixtures("terminal")
def test_quiet_shows_nothing_even_on_a_terminal(capsys):
    show(tiny_run(short_method()), quiet=True)
    assert capsys.readouterr() == ("", "")


def test_quiet_shows_nothing_elsewhere(capsys):
    show(tiny_run(short_method()), quiet=True)
    assert capsys.readouterr() == ("", "")


@pytest.mark.usefixtures("terminal")
def test_a_terminal_shows_phase_losses_speed_and_count(capsys):
    show(tiny_run(short_method()))
    out, err = capsys.readouterr()
    last = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", err).splitlines()[-1]
    assert out == ""
    for part in ("student learns", "4/4", "images/s", "DifferenceEntropy", "Band", "Balance"):
        assert part in last
    # One bar for the whole run: what it prints elsewhere has no place beside it.
    assert "steps" not in err


@pytest.mark.usefixtures("terminal")
def test_the_latest_accuracy_stands_beside_the_bar(capsys):
    display = ProgressDisplay()

    def note(run, losses):
        if run.done == 8:
            display.note_accuracy("top-1 62.5 % of 8", 8)

    with display:
        tiny_run(short_method(learn=10)).to_the_end(note, display)
    assert "top-1 62.5 % of 8" in capsys.readouterr().err


def test_the_bar_ends_with_an_error():
    display = ProgressDisplay()
    with pytest.raises(KeyboardInterrupt), display:
        raise KeyboardInterrupt
    assert display.bar.finished or not display.bar.live.is_started
