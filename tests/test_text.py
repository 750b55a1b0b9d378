from __future__ import annotations

import pytest

from dreamquant.errors import TrainingError
from dreamquant.text import parse_duration


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
