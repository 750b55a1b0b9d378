"""The same seed on the same machine gives the same bytes, in separate processes."""

from __future__ import annotations

import os
import subprocess
import sys

import tiny

PROGRAM = "from dreamquant.cli.main import main; main()"


def files(out, hash_seed):
    """The bytes of a run in a process of its own, whose sets hash their own way."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONHASHSEED": hash_seed}
    command = [sys.executable, "-c", PROGRAM, "quantize", *tiny.options(out.parent, 4)]
    subprocess.run([*command, "-q", "--out", str(out)], check=True, env=environment)
    return [(out / name).read_bytes() for name in ("student.safetensors", "samples.png")]


def test_the_same_seed_gives_the_same_bytes(tmp_path):
    one = files(tmp_path / "one", hash_seed="1")
    assert files(tmp_path / "again", hash_seed="2") == one
