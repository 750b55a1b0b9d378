"""Full disks, folders that may not be written, and clocks that jump."""

from __future__ import annotations

import os
import random
import subprocess
import tempfile
import time
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest

import faults
import kills
import tiny
from dreamquant.errors import ResultError


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The result of a run that nothing happened to."""
    folder = tmp_path_factory.mktemp("whole") / "out"
    tiny.job(folder)
    return folder


def test_every_write_may_fail(whole, tmp_path):
    said = faults.survive(tiny.job, tmp_path / "out", whole, faults.full_after)
    names = ["state.pt", "student.safetensors", "samples.png", "analysis.json", "manifest.json"]
    assert [message.partition(":")[0] for message in said] == [
        *(f"cannot write {name}" for name in names),
        "the result is saved, but its report could not be written",
    ]
    assert all("free some space" in message for message in said)


# Errors come as ours alone, whatever thread met them.
nothing_unhandled = pytest.mark.filterwarnings(
    "error::pytest.PytestUnhandledThreadExceptionWarning"
)


@nothing_unhandled
def test_the_system_refuses_whatever_thread_writes(whole, tmp_path):
    said = faults.survive(
        tiny.job, tmp_path / "out", whole, lambda n: faults.no_file_above((30, 2**20, 2**30)[n])
    )
    assert [message.partition(":")[0] for message in said] == [
        "cannot write log",
        "cannot write state.pt",
    ]


@nothing_unhandled
def test_a_file_system_that_is_full(whole, tmp_path):
    try:
        with faults.small_disk(tmp_path / "disk") as resize:

            def disk(attempt):
                resize((64, 1024, 100_000)[attempt])
                return nullcontext()

            said = faults.survive(tiny.job, tmp_path / "disk" / "out", whole, disk)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no file system may be mounted here: {error.stderr}")
    assert len(said) == 2
    assert all("No space left on device" in message for message in said)


@contextmanager
def as_ordinary_user():
    """For root may write anywhere."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.skipif(os.name != "posix", reason="folders have other permissions here")
@pytest.mark.parametrize("inside", ["", "out"])
def test_a_folder_that_may_not_be_written(inside):
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o555)
        with as_ordinary_user(), pytest.raises(ResultError) as e:
            tiny.job(Path(folder) / inside)
        assert "you may write to" in e.value.remedy
        assert list(Path(folder).iterdir()) == []


def test_a_clock_that_jumps_changes_nothing(whole, tmp_path, monkeypatch):
    chance, now = random.Random(0), time.time
    year = 365 * 24 * 3600
    monkeypatch.setattr(time, "time", lambda: now() + chance.uniform(-year, year))
    result = tiny.job(tmp_path / "out")
    kills.require_equal(tmp_path / "out", whole)
    assert 0 < result.manifest["timings"]["seconds"] < 600
