"""A few cases of every surface; ``benchmarks/reliability.py`` reads a thousand of each."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest

import confined
import fuzzing

CASES = 25
NAMES = [
    *("notations", "arguments", "manifest", "student.safetensors", "weights, safetensors"),
    *("weights, torch", "checkpoint", "images, npz", "images, tar", "ONNX"),
]


@pytest.fixture(scope="module")
def surfaces(tmp_path_factory):
    """Every surface by its name, and the only folder that may be written to."""
    folder = tmp_path_factory.mktemp("fuzzing")
    return {surface.name: surface for surface in fuzzing.surfaces(folder)}, folder


def test_every_surface_is_here(surfaces):
    assert sorted(surfaces[0]) == sorted(NAMES)


@pytest.mark.filterwarnings("ignore")  # of the libraries, about what they are given
@pytest.mark.parametrize("name", NAMES)
def test_what_is_damaged_or_malicious_is_refused(name, surfaces):
    known, folder = surfaces
    outcome = fuzzing.fuzz(known[name], folder, cases=CASES, chance=1)
    assert outcome.cases >= CASES
    assert outcome.refused > 0


@pytest.mark.parametrize(
    "act",
    [
        lambda folder: (folder.parent / "elsewhere").write_text("x"),
        lambda folder: (folder.parent / "new").mkdir(),
        lambda folder: shutil.move(folder / "mine", folder.parent / "moved"),
        lambda folder: os.system("true"),
        lambda folder: subprocess.run([sys.executable, "--version"], check=True),
        lambda folder: exec(compile("1", str(folder / "evil.py"), "exec")),
    ],
    ids=["write", "folder", "move", "shell", "program", "code"],
)
def test_the_watch_sees_what_is_forbidden(act, tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "mine").touch()
    with pytest.raises(AssertionError), confined.confined(folder):
        act(folder)
    with confined.confined(folder):
        (folder / "mine").write_text("x")


def test_an_undocumented_error_is_no_refusal(surfaces):
    known, folder = surfaces
    broken = replace(known["notations"], read=lambda case: {}["no"])
    with pytest.raises(KeyError):
        fuzzing.fuzz(broken, folder, cases=5, chance=0)
