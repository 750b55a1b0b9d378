"""Pairs of options: the command line runs them or refuses them with a message."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import pytest

import option_pairs as pairs

ROWS = pairs.covering()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pairs")
    pairs.prepare(path)
    return path


def test_every_two_values_that_may_meet_do() -> None:
    met = {
        frozenset([" ".join(one), " ".join(other)])
        for row in ROWS
        for one, other in combinations(row.values(), 2)
    }
    assert frozenset(["--export", "--elementwise 8"]) not in met  # no value of its own
    assert frozenset(["--export", "--placement layer-input --elementwise 8"]) in met
    assert len(ROWS) < 100


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("row", ROWS[3::19], ids=lambda row: " ".join(row["--method"]))
def test_a_row_of_pairs_runs(row: pairs.Row, folder: Path, tmp_path: Path) -> None:
    for package in ("onnxscript", "onnxruntime", "matplotlib"):
        pytest.importorskip(package)
    found = pairs.tried({**row, "--iterations": ("--iterations", "2")}, folder, tmp_path / "out")
    assert found.outcome == "ok", found.text


@pytest.mark.parametrize("known", pairs.REFUSED, ids=" ".join)
def test_what_is_refused_together_is_refused_in_words(
    known: tuple[str, ...], folder: Path, tmp_path: Path
) -> None:
    pytest.importorskip("matplotlib")
    row = {each: tuple(each.split()) for each in known}
    row |= {"length": ("--iterations", "2"), "--weights": pairs.factors()["--weights"][0]}
    assert pairs.tried(row, folder, tmp_path / "out").outcome == "refused"
