"""The same seed on the same machine gives the same bytes, in separate processes."""

from __future__ import annotations

import os
import subprocess
import sys

import tiny

PROGRAM = """
import sys
from dreamquant.cli.main import main
try:
    main()
finally:
    print('torch._dynamo' in sys.modules)
"""


def run(out, hash_seed):
    """A run in a process of its own, whose sets hash their own way, and what it printed."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONHASHSEED": hash_seed}
    command = [sys.executable, "-c", PROGRAM, "quantize", *tiny.options(out.parent, 4)]
    command += ["-q", "--out", str(out)]
    return subprocess.check_output(command, env=environment, text=True)


def files(out):
    return [(out / name).read_bytes() for name in ("student.safetensors", "samples.png")]


def test_the_same_seed_gives_the_same_bytes(tmp_path):
    printed = [run(tmp_path / name, hash_seed) for name, hash_seed in (("one", "1"), ("two", "2"))]
    assert files(tmp_path / "one") == files(tmp_path / "two")
    # Who does not compile need not load a compiler, which takes seconds.
    assert [said.splitlines()[-1] for said in printed] == ["False", "False"]
