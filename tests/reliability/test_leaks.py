"""Memory does not grow with iterations; ``benchmarks/reliability.py`` runs twenty thousand."""

from __future__ import annotations

import pytest

import leaks


@pytest.fixture
def often(monkeypatch):
    """Checkpoints as often as they can come, for they may leak too."""
    monkeypatch.setattr("dreamquant.jobs.watchers._SHORTEST", 0.0)
    monkeypatch.setattr("dreamquant.jobs.watchers._LONGEST", 0.0)


@pytest.mark.usefixtures("often")
@pytest.mark.long
def test_nothing_grows(tmp_path):
    levels = leaks.watch(tmp_path / "out", 200, 10)
    assert levels.slope(levels.tensors) == 0
    assert levels.slope(levels.files) == 0
    assert levels.usual_growth(levels.resident) < 20_000


@pytest.mark.long
def test_a_leak_is_noticed(tmp_path):
    kept = []

    def leak(run, losses):
        images = run.bench.images.batch(1).images
        kept.append((images, (tmp_path / "file").open("w"), b"x" * 100_000))

    levels = leaks.watch(tmp_path / "out", 24, 4, leak)
    assert levels.slope(levels.tensors) >= 1
    assert levels.slope(levels.files) == pytest.approx(1)
    assert levels.usual_growth(levels.resident) > 50_000
