"""The tool that compares records with their goals names those that miss one."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

_TOOL = Path(__file__).resolve().parents[1] / "tools" / "check_results.py"


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("check_results", _TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def runs(*top1, **fields):
    return [{"top1": value, **fields} for value in top1]


def schedules(quick, paper):
    return {
        "runs": [
            run
            for bits in ("w3a3", "w4a4")
            for preset, values in (("quick", quick), ("paper", paper))
            for run in runs(*values, bits=bits, preset=preset)
        ]
    }


def test_a_record_that_reaches_its_goal_is_not_named(tool):
    assert list(tool.schedules(schedules([86, 85, 87], [84, 85, 83]))) == []


def test_a_lower_end_and_a_missing_seed_are_named(tool):
    lower = list(tool.schedules(schedules([80, 81, 82], [84, 85, 83])))
    assert lower == [f"{bits}: quick ends at 81.00 %, paper at 84.00" for bits in ("w3a3", "w4a4")]
    (missing, _) = tool.schedules(schedules([86, 85], [84, 85, 83]))
    assert missing == "w3a3: 2 and 3 seeds, needed 3"


def test_an_option_that_moves_accuracy_more_than_a_seed_is_named(tool):
    adadfq = {"method": "adadfq", "bits": "w3a3", "preset": "quick"}
    plain, far = ({"runs": runs(*values, **adadfq)} for values in ([85, 86, 87], [80, 81, 82]))
    assert list(tool.options(plain, plain, plain)) == []
    assert list(tool.options(plain, plain, far)) == [
        "compiled: 81.00 % is further from 86.00 than seeds are"
    ]


def test_runs_of_two_teachers_are_named(tool):
    record = {
        "runs": [{"protocol": {"teacher_sha256": sha}, "teacher_top1": 91.7} for sha in ("a", "b")]
    }
    assert list(tool.teachers(record)) == ["runs of 2 teachers stand on one page"]
