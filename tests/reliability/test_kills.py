"""A few of the kills of ``benchmarks/reliability.py``, in separate processes."""

from __future__ import annotations

import pytest

import kills


@pytest.mark.long
def test_killed_runs_are_resumed_to_the_same_bytes(tmp_path):
    tally = kills.survive(3, tmp_path, iterations=20, seed=0)
    assert sum(tally.kills.values()) == 3
    assert tally.runs == 1


def test_a_file_that_is_not_whole_is_noticed(tmp_path):
    for folder in ("out", "whole"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "samples.png").write_bytes(b"same")
        (tmp_path / folder / "student.safetensors").write_bytes(folder.encode())
    with pytest.raises(AssertionError, match="differs"):
        kills.require_equal(tmp_path / "out", tmp_path / "whole")
    (tmp_path / "out" / "student.safetensors").write_bytes(b"whole")
    kills.require_equal(tmp_path / "out", tmp_path / "whole")
    (tmp_path / "out" / ".lock").touch()
    with pytest.raises(AssertionError, match="instead of"):
        kills.require_equal(tmp_path / "out", tmp_path / "whole")
