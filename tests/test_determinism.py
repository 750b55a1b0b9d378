"""The same seed on the same machine gives the same bytes, in separate processes."""

from __future__ import annotations

import os
import subprocess
import sys

from dreamquant.networks import demo

COMMAND = (
    *(sys.executable, "-c", "from dreamquant.cli.main import main; main()", "quantize"),
    *(f"{demo.NETWORK}:digits", "--weights", str(demo.WEIGHTS), "--input", "1x8x8"),
    *("--mean", "0.3054", "--std", "0.3758", "--method", "adadfq", "--iterations", "4"),
    *("--device", "cpu", "-q"),
)


def files(out, hash_seed):
    """The bytes of a run in a process of its own, whose sets hash their own way."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONHASHSEED": hash_seed}
    subprocess.run([*COMMAND, "--out", str(out)], check=True, env=environment)
    return [(out / name).read_bytes() for name in ("student.safetensors", "samples.png")]


def test_the_same_seed_gives_the_same_bytes(tmp_path):
    one = files(tmp_path / "one", hash_seed="1")
    assert files(tmp_path / "again", hash_seed="2") == one
