"""The examples run without changes."""

import importlib.util
import json
from pathlib import Path

import pytest

import dreamquant
from dreamquant.cli import main as cli
from dreamquant.methods import find_method
from dreamquant.networks import demo

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


def test_quickstart_runs(capsys):
    spec = importlib.util.spec_from_file_location("quickstart", EXAMPLES / "quickstart.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.main(iterations=4)
    assert "student" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["mine", "generated"])
def test_an_own_method_runs_and_is_on_record_with_its_parts(name, tmp_path):
    file = f"{EXAMPLES / 'my_method.py'}:{name}"
    options = {"iterations": 6, "device": "cpu", "quiet": True, "out": tmp_path / "out"}
    dreamquant.quantize(demo.teacher(), "w4a4", file, **options)
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    own = {"mine": "NoiseImages", "generated": "Generator"}
    assert manifest["method"]["images"]["part"] == own[name]
    lengths = {phase["name"]: phase["iterations"] for phase in manifest["phases"]}
    assert (
        lengths
        == {
            "mine": {"activation ranges are set": 1, "student learns": 6},
            "generated": {"generator warms up": 1, "student learns": 5},
        }[name]
    )
    assert manifest["ranges_set_at"] == 1
    assert (tmp_path / "out" / "report.html").exists()


def test_its_own_loss_is_logged_and_reads_its_own_tap(tmp_path):
    method = find_method(f"{EXAMPLES / 'my_method.py'}:generated")
    assert [type(tap).__name__ for tap in method.teacher_taps] == ["BatchNormInputs", "FirstMap"]
    options = {"iterations": 6, "device": "cpu", "quiet": True}
    result = dreamquant.quantize(demo.teacher(), "w4a4", method, **options)
    losses = result.manifest["history"]["losses"][-1]
    assert losses["generator/Smooth"] > 0


def test_an_own_method_has_its_page(capsys):
    with pytest.raises(SystemExit):
        cli.main(["methods", f"{EXAMPLES / 'my_method.py'}:mine"])
    assert "Gaussian noise, labelled by the teacher." in capsys.readouterr().out
