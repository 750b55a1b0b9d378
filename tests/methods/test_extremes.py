"""Methods that train nothing, from the command line to an exported file, on the demo network."""

from __future__ import annotations

import json
import signal
from dataclasses import replace

import pytest

import tiny
from dreamquant import quantize
from dreamquant.cli import main as cli
from dreamquant.errors import MethodError
from dreamquant.jobs import checkpoint
from dreamquant.jobs import job as pipeline
from dreamquant.methods import find_method
from dreamquant.networks import demo
from dreamquant.recovery.without_images import RoundBySquant
from dreamquant.results.folder import CHECKPOINT
from dreamquant.results.manifest import read_manifest
from tiny_runs import tiny_network

DIGITS = (f"{demo.NETWORK}:digits", "--weights", str(demo.WEIGHTS))
INPUT = ("--input", "1x8x8", "--mean", "0.3054", "--std", "0.3758")
COMMON = (*DIGITS, *INPUT, "--device", "cpu", "--precision", "32", "--quiet")
METHODS = ("squant", "zeroq", "minutes")
# Steps of the pool, where there is one, and of what sets ranges or weights.
SHORT = {"squant": (), "zeroq": ("--iterations", "6"), "minutes": ("--iterations", "6")}


def command(*arguments):
    """Run a command in this process."""
    with pytest.raises(SystemExit) as stopped:
        cli.main([str(argument) for argument in arguments])
    assert not stopped.value.code


def quantized(method, out, *options, bits="w8a8"):
    command(
        *("quantize", *COMMON, "--method", method, "--bits", bits),
        *(*SHORT[method], "--data", demo.HELD_OUT, "--out", out, *options),
    )
    return read_manifest(out)


@pytest.fixture(scope="module", params=METHODS)
def finished(request, tmp_path_factory):
    """A result of each method, made once."""
    out = tmp_path_factory.mktemp(request.param) / "out"
    return request.param, quantized(request.param, out), out


def test_the_folder_is_complete_and_the_manifest_tells_the_phases(finished):
    method, manifest, out = finished
    written = {path.name for path in out.iterdir()}
    assert {"report.html", "analysis.json", "student.safetensors"} <= written
    assert ("samples.png" in written) == (method != "squant")
    assert CHECKPOINT not in written
    names = [phase["name"] for phase in manifest["phases"]]
    wanted = {
        "squant": ["rounding weights by SQuant", "setting activation ranges from noise"],
        "zeroq": ["dreaming images 1 to 64", "setting activation ranges"],
        "minutes": ["dreaming images 1 to 256", "rounding weights by least squares"],
    }
    assert names == wanted[method]
    steps = sum(phase["iterations"] for phase in manifest["phases"])
    assert manifest["timings"]["iterations"] == steps


def test_eight_bits_cost_next_to_nothing(finished):
    _, manifest, _ = finished
    accuracy = manifest["accuracy"]
    assert accuracy["student"]["top1"] > accuracy["teacher"]["top1"] - 5


def test_the_report_names_the_method(finished):
    method, _, out = finished
    assert method in (out / "report.html").read_text()


@pytest.mark.parametrize("finished", ["squant"], indirect=True)
def test_the_result_exports_to_a_file_that_answers_alike(finished, tmp_path, capsys):
    pytest.importorskip("onnxruntime")
    _, manifest, out = finished
    command("export", out, "--to", tmp_path, "--target", "int8box", "--json")
    command("evaluate", tmp_path / "model.int8box.onnx", demo.HELD_OUT, "--json")
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines() if line[:1] == "{"]
    assert found[-1]["top1"] == pytest.approx(manifest["accuracy"]["student"]["top1"], abs=1)


def test_a_finished_run_is_returned_when_it_is_resumed(finished):
    method, manifest, out = finished
    assert quantized(method, out, "--resume") == manifest


def test_the_record_is_json_without_surprises(finished):
    _, manifest, _ = finished
    assert json.loads(json.dumps(manifest, allow_nan=False)) == manifest


class StopAfter:
    """A watcher that interrupts a run after so many steps, and only once."""

    def __init__(self, monkeypatch, steps):
        self.left = steps
        usual = pipeline.run_to_the_end

        def run(run, watchers):
            usual(run, [self, *watchers])

        monkeypatch.setattr(pipeline, "run_to_the_end", run)

    def __call__(self, run, losses):
        self.left -= 1
        if not self.left:
            signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize(("method", "steps"), [("squant", 5), ("zeroq", 4), ("minutes", 8)])
def test_a_run_that_was_stopped_in_any_phase_goes_on_to_the_same_student(
    method, steps, tmp_path, monkeypatch
):
    def run(folder, **options):
        iterations = None if method == "squant" else 6
        common = {"device": "cpu", "precision": "32", "quiet": True, "iterations": iterations}
        network = tiny_network()
        return quantize(network, "w4a4", method, input=tiny.INPUT, out=folder, **common, **options)

    run(tmp_path / "whole")
    with monkeypatch.context() as patch:
        StopAfter(patch, steps)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "out")
    saved = checkpoint.read(tmp_path / "out" / CHECKPOINT)
    done = saved["run"]["done"] + (6 if saved["run"]["index"] and method != "squant" else 0)
    assert saved["run"]["index"] in (0, 1)
    assert done > 0
    run(tmp_path / "out", resume=True)
    students = [tmp_path / name / "student.safetensors" for name in ("whole", "out")]
    assert students[0].read_bytes() == students[1].read_bytes()


@pytest.mark.parametrize(("method", "budget"), [("squant", "30s"), ("zeroq", "10s")])
def test_a_budget_sets_the_steps_of_what_can_be_stretched(method, budget, tmp_path):
    result = quantize(
        demo.teacher(),
        "w8a8",
        method,
        device="cpu",
        precision="32",
        quiet=True,
        budget=budget,
        out=tmp_path / "out",
    )
    dreamed = sum(p["iterations"] for p in result.manifest["phases"] if "dreaming" in p["name"])
    assert (dreamed > 0) == (method != "squant")
    assert result.manifest["request"]["budget"] == budget


@pytest.mark.parametrize("method", ["squant", "gdfq"])
def test_every_method_is_measured_on_the_same_probe_images(method):
    common = {"device": "cpu", "quiet": True}
    iterations = None if method == "squant" else 2
    result = quantize(demo.teacher(), "w8a8", method, iterations=iterations, **common)
    assert result.manifest["agreement"]["on"] == "512 probe images (dead leaves)"
    assert result.analysis["on"] == "probe images"
    assert (result.samples is None) == (method == "squant")


def test_a_method_that_sets_no_ranges_is_refused_by_the_name_of_a_quantizer(tmp_path):
    squant = find_method("squant")
    parts = tuple(part for part in squant.recovery if isinstance(part, RoundBySquant))
    method = replace(squant, name="rounding", recovery=parts)
    with pytest.raises(MethodError, match=r"never set the activation range of .* and [0-9]+ more"):
        quantize(demo.teacher(), "w8a8", method, device="cpu", quiet=True, out=tmp_path / "out")
    assert not (tmp_path / "out" / "manifest.json").exists()
