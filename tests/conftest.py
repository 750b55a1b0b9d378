"""Fixtures shared by all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real weights and images; skips where there is none."""
    default = Path(__file__).resolve().parents[1] / "../shared/data"
    folder = Path(os.environ.get("DREAMQUANT_DATA", default)).resolve()
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}: set DREAMQUANT_DATA")
    return folder
