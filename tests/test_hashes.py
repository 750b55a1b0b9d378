"""The tool that shows that a refactoring changes no result."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_a_run_of_this_checkout_prints_the_hash_of_its_student(capsys):
    spec = importlib.util.spec_from_file_location("hashes", ROOT / "tools/hashes.py")
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    tool.main(["--runs", "gdfq", "--iterations", "4"])
    assert re.fullmatch(r"gdfq +[0-9a-f]{64}\n", capsys.readouterr().out)
