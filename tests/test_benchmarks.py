"""Benchmarks keep every run, whoever makes it."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

RESULTS = Path(__file__).resolve().parents[1] / "docs" / "results"
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


def test_deployment_on_record_reaches_its_goals():
    runs = json.loads((RESULTS / "deploy.json").read_text())["runs"]
    files = {
        (run["bits"], target): file
        for run in runs
        if run["network"] == "resnet18"
        for target, file in run["files"].items()
    }
    assert files["w8a8", "int8box"]["share_of_float32"] <= 0.27
    assert files["w4a4", "int4"]["share_of_float32"] <= 0.14
    assert files["w8a8", "int8box"]["timed"]["onnxruntime"]["speedup"] >= 2.5
    assert files["w4a4", "int8box"]["timed"]["onnxruntime"]["speedup"] >= 2
    assert all(
        f["verification"]["float_convolutions"] == 0
        for f in (files["w8a8", "int8box"], files["w4a4", "int8box"])
    )
