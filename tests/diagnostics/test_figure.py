"""The plot needs only the content of diagnostics.json."""

from __future__ import annotations

import io
import sys

import pytest
from PIL import Image

from dreamquant.diagnostics.figure import picture, require_matplotlib
from dreamquant.errors import ResultError

ANSWERS = {by: {"feature": 0.1, "prediction": 0.5} for by in ("views", "weights")}
ATTENTION = {"centre_spread": 0.05, "per_class": {"0": 0.04, "7": 0.06}, "mode_gap": 0.02}
FOUND = {
    "schema": 1,
    "dynamics": {
        "iteration": [10, 20, 30],
        "gradient_norm": [3.0, 2.0, 1.0],
        "batch_similarity": [None, 0.5, 0.6],
        "student_learns_from": 12,
    },
    "attention": {"synthetic": ATTENTION, "real": ATTENTION | {"per_class": {"7": 0.03}}},
    "inconsistency": {"noise": ANSWERS, "synthetic": ANSWERS, "real": ANSWERS},
    "adaptability": {
        "lower": 0.1,
        "upper": 0.8,
        "bounds_of": "the method",
        "below": 0.25,
        "within": 0.5,
        "above": 0.25,
        "edges": [0, 0.5, 1],
        "counts": [3, 5],
    },
}
BRIEF = {
    "iteration": [4],
    "gradient_norm": [3.0],
    "batch_similarity": [None],
    "student_learns_from": 1,
}
UNREAL = {
    "attention": {"synthetic": ATTENTION, "real": None},
    "inconsistency": {"noise": ANSWERS, "synthetic": ANSWERS, "real": None},
}


# Of a method whose images do not learn.
STILL = {"iteration": [], "gradient_norm": [], "batch_similarity": [], "student_learns_from": None}


@pytest.mark.parametrize(
    "change",
    [{}, {"dynamics": BRIEF}, {"dynamics": STILL}, UNREAL],
    ids=["all", "brief", "still", "bare"],
)
@pytest.mark.filterwarnings("error")
def test_a_picture_of_whatever_was_found(change):
    with Image.open(io.BytesIO(picture(FOUND | change, "a run"))) as image:
        assert image.format == "PNG"
        assert image.width >= 1000


def test_without_matplotlib_the_remedy_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ResultError, match="matplotlib, which cannot be used") as e:
        require_matplotlib()
    assert e.value.remedy == "pip install 'dreamquant[report]'"
