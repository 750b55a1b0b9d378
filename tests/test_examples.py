"""The examples run as they stand."""

import importlib.util
from pathlib import Path

from dreamquant.methods import find_method

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


def test_quickstart_runs(capsys):
    spec = importlib.util.spec_from_file_location("quickstart", EXAMPLES / "quickstart.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.main(iterations=4)
    assert "student" in capsys.readouterr().out


def test_own_method_is_found():
    method = find_method(f"{EXAMPLES / 'my_method.py'}:mine")
    assert method.recipe("quick", (3, 32, 32)).schedule.iterations > 0
