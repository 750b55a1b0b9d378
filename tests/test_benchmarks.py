"""Benchmarks keep every run, whoever makes it."""

from __future__ import annotations

import importlib
from pathlib import Path

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


def test_two_processes_share_a_grid(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    grid = importlib.import_module("grid")
    monkeypatch.setattr(grid, "RESULTS", tmp_path)
    first, second = grid.Grid("g", "title"), grid.Grid("g", "title")
    first.add({"method": "gdfq", "bits": "w3a3", "seed": 0})
    second.add({"method": "adadfq", "bits": "w3a3", "seed": 0})
    first.add({"method": "gdfq", "bits": "w3a3", "seed": 1})
    assert len(first.runs) == len(second.runs) == 3
    assert second.has(grid.Point("gdfq", "w3a3", 1))
    assert not second.has(grid.Point("gdfq", "w3a3", 2))
