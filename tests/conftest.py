"""Fixtures shared by all tests."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import torch

from dreamquant.jobs import resume
from dreamquant.synthesis.targets import low_correlation_table
from once import operators_of_onnx_read_once, probe_images_drawn_once

# A job started in the background of a script ignores Ctrl-C, and so would all that it starts: the
# tests of stopping a run need the ordinary handler.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def ordinary_ctrl_c():
    """Whatever an earlier test left behind, Ctrl-C raises: else it would end the test process."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real weights and images; skips where there is none."""
    default = Path(__file__).resolve().parents[1] / "../shared/data"
    folder = Path(os.environ.get("DREAMQUANT_DATA", default)).resolve()
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}: set DREAMQUANT_DATA")
    return folder


@pytest.fixture(scope="session", autouse=True)
def float32_by_default():
    """``--precision auto`` is float32, whatever this machine has: results of tests are one kind."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resume, "chosen_precision", lambda device: "32")
        yield


@pytest.fixture(scope="session", autouse=True)
def done_once():
    """See :mod:`once`."""
    with probe_images_drawn_once(), operators_of_onnx_read_once():
        yield


@pytest.fixture
def float64():
    """Everything in float64: Adam divides by a gradient's size, and so magnifies rounding."""
    torch.set_default_dtype(torch.float64)
    low_correlation_table.cache_clear()
    yield
    low_correlation_table.cache_clear()
    torch.set_default_dtype(torch.float32)
