from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from dreamquant.errors import ResultError
from dreamquant.results.files import write_bytes
from dreamquant.results.lock import LOCK, alone_in

HOLD = """
import sys, time
from pathlib import Path
from dreamquant.results.lock import alone_in

with alone_in(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds ``tmp_path / "out"``."""
    command = [sys.executable, "-c", HOLD, str(tmp_path / "out")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_a_folder_takes_one_run_at_a_time_and_outlives_its_kill(holder, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(ResultError, match="another run is using") as e, alone_in(out):
        pytest.fail("two at once")
    assert e.value.where == "--out"
    assert "another folder" in e.value.remedy
    with alone_in(tmp_path / "other"):
        pass
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    assert (out / LOCK).exists()
    with alone_in(out):
        (out / "result").touch()
    assert [path.name for path in out.iterdir()] == ["result"]


def test_a_folder_that_was_made_for_nothing_is_gone(tmp_path):
    with alone_in(tmp_path / "out"):
        assert (tmp_path / "out" / LOCK).exists()
    assert list(tmp_path.iterdir()) == []
    with alone_in(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_without_a_folder_nothing_is_held(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with alone_in(None), alone_in(None):
        assert list(tmp_path.iterdir()) == []


def test_what_a_killed_run_left_half_written_is_removed(tmp_path, monkeypatch):
    (tmp_path / "checkpoint").mkdir()
    ours = {tmp_path / ".mine.tmp", tmp_path / "checkpoint" / "state.pt"}
    for path in ours:
        path.touch()
    with monkeypatch.context() as patched:
        # As after a kill: nothing is cleaned up.
        patched.setattr("pathlib.Path.unlink", lambda *_, **__: None)
        patched.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError("killed")))
        for folder in (tmp_path, tmp_path / "checkpoint"):
            with pytest.raises(ResultError):
                write_bytes(folder / "file", b"new")
    assert len(list(tmp_path.rglob("*.tmp"))) == 3
    with alone_in(tmp_path):
        left = {path for path in tmp_path.rglob("*") if path.is_file()}
    assert left == ours | {tmp_path / LOCK}
