"""The main job from Python, end to end, on networks that take seconds."""

from __future__ import annotations

import json
import shutil
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

import dreamquant
from dreamquant import InputSpec
from dreamquant.errors import (
    DataError,
    MethodError,
    NetworkError,
    ResultError,
    SchemeError,
    TrainingError,
)
from dreamquant.jobs import checkpoint
from dreamquant.jobs import job as pipeline
from dreamquant.jobs import measurements as measuring
from dreamquant.jobs.budget import Fitted
from dreamquant.methods.method import Preset
from dreamquant.networks import demo
from dreamquant.networks.attention_taps import AttentionTap
from dreamquant.networks.load import wrap_module
from dreamquant.networks.weights import state_sha256
from dreamquant.recovery.without_images import RangesFromNoise
from dreamquant.synthesis.generator import Stream
from dreamquant.terms.classes import TeacherCrossEntropy
from dreamquant.training import tracing

TINY_INPUT = InputSpec(shape=(3, 8, 8), mean=(0.5,) * 3, std=(0.25,) * 3, num_classes=5)


def digits_network():
    """The demo's trained teacher."""
    network = dreamquant.load_network(
        f"{demo.NETWORK}:digits",
        weights=demo.WEIGHTS,
        shape=demo.INPUT.shape,
        mean=demo.INPUT.mean,
        std=demo.INPUT.std,
    )
    return replace(network, input=demo.INPUT)


def tiny_module():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, bias=False),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Conv2d(6, 8, 3),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 5),
    )


def quantize_digits(**options):
    defaults = {"bits": "w3a3", "method": "adadfq", "iterations": 6, "device": "cpu", "quiet": True}
    return dreamquant.quantize(digits_network(), **defaults | options)


def quantize_tiny(**options):
    defaults = {
        "input": TINY_INPUT,
        "method": "adadfq",
        "iterations": 4,
        "device": "cpu",
        "quiet": True,
    }
    return dreamquant.quantize(tiny_module(), **{"quiet": True} | defaults | options)


def logits(model, shape):
    images = torch.randn(5, *shape, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        return model(images)


def assert_loads_alike(result, folder, **how):
    shape = result.input.shape
    loaded = dreamquant.load(folder, **how)
    assert logits(loaded, shape).equal(logits(result.model, shape))
    assert dreamquant.open_result(folder, **how).manifest == result.manifest


def student_bytes(folder):
    return (folder / "student.safetensors").read_bytes()


# -------------------------------------------------------------------------- end to end


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    """One run on the tiny network, its folder, and the labelled noise that it was measured on."""
    folder, random = tmp_path_factory.mktemp("labelled"), np.random.default_rng(0)
    images = random.integers(0, 256, (50, 8, 8, 3), dtype=np.uint8)
    np.savez(folder / "data.npz", images=images, labels=random.integers(0, 5, 50))
    data = folder / "data.npz"
    return quantize_tiny(data=data, out=folder / "out"), folder / "out", data


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """One run on the demo network, with images and a folder."""
    folder = tmp_path_factory.mktemp("runs") / "out"
    return quantize_digits(data=demo.HELD_OUT, out=folder), folder


def test_the_folder_holds_what_the_contract_says(digits):
    _, folder = digits
    assert sorted(path.name for path in folder.iterdir()) == [
        "analysis.json",
        "log",
        "manifest.json",
        "report.html",
        "samples.png",
        "student.safetensors",
    ]
    assert (folder / "samples.png").read_bytes().startswith(b"\x89PNG")


def test_the_manifest_on_disk_is_the_results(digits):
    result, folder = digits
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest == result.manifest
    accuracy = manifest["accuracy"]
    assert accuracy["teacher"]["top1"] > 98
    assert accuracy["teacher"]["n"] == accuracy["student"]["n"] == 597
    assert 10 < accuracy["ranges_only"]["top1"] < accuracy["teacher"]["top1"]
    assert manifest["agreement"]["on"] == "597 images given"
    assert manifest["protocol"]["bits"] == "w3a3"
    assert manifest["timings"]["iterations"] == 6
    assert 0 < manifest["timings"]["training_cpu_seconds"] < manifest["timings"]["seconds"] * 64
    assert manifest["method"]["iterations"] == 6
    phases = [(phase["name"], phase["iterations"]) for phase in manifest["phases"]]
    assert phases == [("generator warms up", 1), ("student learns", 5)]
    assert manifest["ranges_set_at"] == 1
    assert sum(phase["seconds"] for phase in manifest["phases"]) == pytest.approx(
        manifest["timings"]["training_seconds"], rel=1e-6
    )
    assert sorted(manifest["files"]) == ["analysis.json", "samples.png", "student.safetensors"]


def test_the_summary_is_the_manifests_headline(digits):
    result, _ = digits
    manifest = result.manifest
    assert result.summary() == {
        **{name: {"top1": value["top1"]} for name, value in manifest["accuracy"].items()},
        "agreement": manifest["agreement"]["percent"],
        "seconds": manifest["timings"]["seconds"],
        "iterations": 6,
    }


def test_the_log_has_the_losses(digits):
    result, folder = digits
    events = EventAccumulator(str(folder / "log")).Reload()
    names = ["generator/Balance", "generator/Band", "generator/BatchNormStatistics"]
    names.append("student/DifferenceEntropy")
    scalars = {name for name in events.Tags()["scalars"] if not name.startswith("range/")}
    assert scalars == {*(f"loss/{name}" for name in names), "accuracy/top1"}
    # At the end of each phase.
    first, last = result.manifest["history"]["losses"]
    assert (first["iteration"], last["iteration"]) == (1, 6)
    assert sorted(first) == sorted(["iteration", *names[:3]])
    for name in names:
        event = events.Scalars(f"loss/{name}")[-1]
        assert (event.step, event.value) == (6, pytest.approx(last[name], rel=1e-6))


def test_the_log_shows_images_weights_codes_and_ranges(digits):
    result, folder = digits
    events = EventAccumulator(str(folder / "log")).Reload()
    assert events.Tags()["images"] == ["images/synthetic"]
    layers = [layer["name"] for layer in result.manifest["coverage"]["layers"]]
    assert sorted(events.Tags()["histograms"]) == sorted(
        f"{what}/{layer}" for what in ("weights", "codes") for layer in layers
    )
    codes = events.Histograms(f"codes/{layers[0]}")[-1]
    assert codes.step == 6
    assert (codes.histogram_value.min, codes.histogram_value.max) == (-4, 3)
    quantizers = result.model.activation_quantizers()
    for name, quantizer in quantizers.items():
        low, high = (events.Scalars(f"range/{name}/{end}")[-1].value for end in ("low", "high"))
        assert high - low == pytest.approx(7 * quantizer.scale.item())
        assert low <= 0 < high
    assert len(quantizers) > 0


def test_a_loaded_student_answers_bit_by_bit_the_same(digits):
    assert_loads_alike(*digits)


def test_the_saved_student_measures_what_the_manifest_says(digits):
    result, folder = digits
    again = dreamquant.open_result(folder).evaluate(demo.HELD_OUT)
    assert again.top1 == result.manifest["accuracy"]["student"]["top1"]


def test_without_a_folder_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = quantize_tiny()
    assert list(tmp_path.iterdir()) == []
    assert logits(result.model, (3, 8, 8)).isfinite().all()
    result.save(tmp_path / "later")
    assert (tmp_path / "later" / "report.html").is_file()
    assert_loads_alike(result, tmp_path / "later", network=tiny_module())


@pytest.mark.parametrize("method", sorted(dreamquant.METHODS))
def test_every_method_runs_and_is_measured_on_probe_images_without_others(method):
    options = {"bits": "w8a8", "method": method, "iterations": 4, "device": "cpu", "quiet": True}
    attentive = any(
        isinstance(tap, AttentionTap) for tap in dreamquant.METHODS[method].teacher_taps
    )
    network = demo.transformer_teacher() if attentive else wrap_module(tiny_module(), TINY_INPUT)
    result = dreamquant.quantize(network, **options)
    assert result.manifest["accuracy"] == {"teacher": None, "ranges_only": None, "student": None}
    assert result.manifest["agreement"]["on"] == "512 probe images (dead leaves)"
    assert 0 <= result.manifest["agreement"]["percent"] <= 100
    assert result.summary()["student"] == {"top1": None}


@pytest.mark.parametrize("method", ["auto", "squant"])
def test_batch_norms_are_not_re_estimated_without_a_methods_own_images(method):
    with pytest.raises(MethodError, match="has none for that") as e:
        quantize_tiny(method=method, batch_norm="re-estimated")
    assert e.value.where == "--batch-norm re-estimated"


def test_the_network_given_may_be_one_that_is_loaded():
    network = digits_network()
    module, before = network.module, digits_network().weights_sha256
    dreamquant.quantize(network, method="adadfq", iterations=2, device="cpu", quiet=True)
    assert network.module is module
    assert state_sha256(module) == before
    assert {p.device.type for p in module.parameters()} == {"cpu"}
    assert not any(part._forward_pre_hooks or part._forward_hooks for part in module.modules())


def test_the_network_given_is_left_as_it_was():
    module = tiny_module().train()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    quantize_tiny_of(module)
    assert module.training
    assert all(p.requires_grad and p.grad is None for p in module.parameters())
    assert all(tensor.equal(before[name]) for name, tensor in module.state_dict().items())


def quantize_tiny_of(module):
    options = {"input": TINY_INPUT, "method": "adadfq", "iterations": 3, "device": "cpu"}
    return dreamquant.quantize(module, quiet=True, **options)


# ----------------------------------------------------------------------------- schemes


@pytest.mark.parametrize(
    "options",
    [
        {"placement": "layer-input", "first_last": 8},
        {"override": ("3=w8a8", "8=w2a4"), "placement": "layer-input"},
        {"bits": "w8a2", "method": "gdfq"},
        {"preset": "paper"},
    ],
    ids=lambda options: " ".join(f"{name}={value}" for name, value in options.items()),
)
def test_every_scheme_trains_saves_and_loads(options, tmp_path):
    result = quantize_tiny(out=tmp_path / "out", **options)
    assert_loads_alike(result, tmp_path / "out", network=tiny_module())
    for name in ("placement", "bits"):
        assert result.manifest["protocol"][name] == options.get(
            name, {"placement": "relu-output", "bits": "w4a4"}[name]
        )
    layers = {layer["name"]: layer for layer in result.manifest["coverage"]["layers"]}
    assert list(layers) == ["0", "3", "8"]
    if options.get("first_last"):
        assert [layer["weight_bits"] for layer in layers.values()] == [8, 4, 8]
    if "override" in options:
        assert [layer["weight_bits"] for layer in layers.values()] == [4, 8, 2]
        assert [layer["input_bits"] for layer in layers.values()] == [4, 8, 4]
    if options.get("placement") == "layer-input":
        assert result.manifest["coverage"]["relu_outputs"] == []
    else:
        assert len(result.manifest["coverage"]["relu_outputs"]) == 2


@pytest.mark.parametrize("choice", ["kept", "re-estimated"])
def test_batch_norms_have_the_statistics_that_were_asked_for(choice, tmp_path):
    result = quantize_tiny(batch_norm=choice, out=tmp_path / "out")
    re_estimated = choice == "re-estimated"
    names = [phase["name"] for phase in result.manifest["phases"]]
    assert ("re-estimating batch norms" in names) == re_estimated
    assert result.manifest["request"]["batch_norm"] == choice
    teacher = tiny_module().state_dict()
    student = dreamquant.load(tmp_path / "out", network=tiny_module()).network.state_dict()
    kept = [name for name in teacher if "running" in name and teacher[name].equal(student[name])]
    assert len(kept) == (0 if re_estimated else 4)


def test_bf16_is_for_training_only(tmp_path):
    result = quantize_tiny(precision="bf16")
    assert logits(result.model, (3, 8, 8)).dtype == torch.float32
    assert all(p.dtype == torch.float32 for p in result.model.parameters())
    assert result.manifest["protocol"]["training_precision"] == "bf16"


# ---------------------------------------------------------------- repeated and resumed


def test_another_seed_gives_another_student(tmp_path):
    for seed in (0, 1):
        quantize_tiny(out=tmp_path / str(seed), seed=seed)
    assert student_bytes(tmp_path / "0") != student_bytes(tmp_path / "1")


def interrupt_at(monkeypatch, iteration):
    """Press Ctrl-C in the middle of an iteration, when its noise is already drawn."""
    make, pressed = Stream.make, []

    def make_and_interrupt(self, asked):
        # Of the steps that use the generator: counted by its updates. A second time would stop at
        # once, and who looks at images makes some too.
        if self.done == iteration and not pressed:
            pressed.append(iteration)
            signal.raise_signal(signal.SIGINT)
        return make(self, asked)

    monkeypatch.setattr(Stream, "make", make_and_interrupt)


@pytest.mark.parametrize("iteration", [0, 2])
def test_an_interrupted_run_goes_on_bit_for_bit(iteration, labelled, tmp_path, monkeypatch):
    whole, folder, data = labelled
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        interrupt_at(patch, iteration)
        with pytest.raises(KeyboardInterrupt):
            quantize_tiny(data=data, out=out)
    assert (out / "checkpoint" / "state.pt").is_file()
    assert not (out / "manifest.json").exists()
    result = quantize_tiny(data=data, out=out, resume=True)
    assert student_bytes(out) == student_bytes(folder)
    assert result.manifest["accuracy"] == whole.manifest["accuracy"]
    assert result.manifest["history"] == whole.manifest["history"]
    assert not (out / "checkpoint").exists()
    assert_loads_alike(result, out, network=tiny_module())


def test_a_compiled_run_learns_the_same_and_goes_on_bit_for_bit(tmp_path, monkeypatch):
    monkeypatch.setattr(tracing, "_compiled", lambda graph, device: graph)
    plain = quantize_tiny()
    whole = quantize_tiny(compile=True, out=tmp_path / "whole")
    shape = plain.input.shape
    torch.testing.assert_close(logits(whole.model, shape), logits(plain.model, shape))
    with monkeypatch.context() as patch:
        interrupt_at(patch, 2)
        with pytest.raises(KeyboardInterrupt):
            quantize_tiny(compile=True, out=tmp_path / "out")
    quantize_tiny(compile=True, out=tmp_path / "out", resume=True)
    assert student_bytes(tmp_path / "out") == student_bytes(tmp_path / "whole")


def test_a_run_stopped_while_it_was_measured_at_the_end_goes_on(tmp_path, monkeypatch):
    def stopped(*_, **__):
        raise KeyboardInterrupt

    out = tmp_path / "out"
    quantize_tiny(out=tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr(measuring.Measurements, "finish", stopped)
        with pytest.raises(KeyboardInterrupt):
            quantize_tiny(out=out)
    quantize_tiny(out=out, resume=True)
    assert student_bytes(out) == student_bytes(tmp_path / "whole")


def test_a_resumed_run_keeps_the_length_that_its_budget_gave_it(tmp_path, monkeypatch):
    fitted = []

    def fit(method, seconds, build):
        fitted.append(seconds)
        return Fitted(method.lasting(5), [])

    monkeypatch.setattr(pipeline, "fit", fit)
    options = {"iterations": None, "budget": "1min"}
    whole = quantize_tiny(out=tmp_path / "whole", **options)
    assert whole.manifest["timings"]["iterations"] == 5
    with monkeypatch.context() as patch:
        interrupt_at(patch, 2)
        with pytest.raises(KeyboardInterrupt):
            quantize_tiny(out=tmp_path / "out", **options)
    result = quantize_tiny(out=tmp_path / "out", resume=True, **options)
    assert result.manifest["timings"]["iterations"] == 5
    assert student_bytes(tmp_path / "out") == student_bytes(tmp_path / "whole")
    assert len(fitted) == 2
    assert all(0 < seconds < 60 for seconds in fitted)


@pytest.fixture(scope="module")
def stopped_once(tmp_path_factory):
    """The folder of an interrupted run, for copies of it."""
    folder = tmp_path_factory.mktemp("stopped") / "out"
    with pytest.MonkeyPatch.context() as patch:
        interrupt_at(patch, 2)
        with pytest.raises(KeyboardInterrupt):
            quantize_tiny(out=folder)
    return folder


@pytest.fixture
def stopped(stopped_once, tmp_path):
    """The folder of an interrupted run."""
    return shutil.copytree(stopped_once, tmp_path / "out")


def test_an_unfinished_run_is_not_overwritten(stopped):
    before = (stopped / "checkpoint" / "state.pt").read_bytes()
    with pytest.raises(ResultError, match="holds an unfinished run") as e:
        quantize_tiny(out=stopped)
    assert "--resume" in e.value.remedy
    assert (stopped / "checkpoint" / "state.pt").read_bytes() == before


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("seed", 1),
        ("method", "gdfq"),
        ("preset", "paper"),
        ("iterations", 5),
        ("precision", "bf16"),
        ("compile", True),
        ("micro_batches", 2),
    ],
)
def test_another_run_cannot_be_resumed(option, value, stopped):
    with pytest.raises(TrainingError, match=f"made with {option} = ") as e:
        quantize_tiny(out=stopped, resume=True, **{option: value})
    assert repr(value) in e.value.what


def test_another_scheme_or_network_cannot_be_resumed(stopped):
    with pytest.raises(TrainingError, match="made with bits = 'w4a4', this run has 'w5a5'"):
        quantize_tiny(out=stopped, resume=True, bits="w5a5")
    other = tiny_module()
    nn.init.zeros_(other[8].bias)
    with pytest.raises(TrainingError, match="made with network = "):
        dreamquant.quantize(
            *(other, "w4a4", "adadfq"),
            **{"input": TINY_INPUT, "iterations": 4, "device": "cpu"},
            **{"out": stopped, "resume": True},
        )


def test_a_run_killed_before_it_saved_anything_starts_again(tmp_path):
    quantize_tiny(out=tmp_path / "whole")
    quantize_tiny(out=tmp_path / "out", resume=True)
    assert student_bytes(tmp_path / "out") == student_bytes(tmp_path / "whole")
    with pytest.raises(ResultError, match="nothing to resume without a folder"):
        quantize_tiny(resume=True)


def test_a_run_killed_after_its_result_was_whole_gives_that(tmp_path):
    out = tmp_path / "out"
    whole = quantize_tiny(out=out)
    report, manifest = out / "report.html", (out / "manifest.json").read_bytes()
    # As if it had been killed right before these two.
    report.unlink()
    (out / "checkpoint").mkdir()
    again = quantize_tiny(out=out, resume=True)
    assert report.exists()
    assert not (out / "checkpoint").exists()
    assert (out / "manifest.json").read_bytes() == manifest
    assert again.manifest == whole.manifest
    assert logits(again.model, (3, 8, 8)).equal(logits(whole.model, (3, 8, 8)))
    assert logits(again.teacher, (3, 8, 8)).equal(logits(whole.teacher, (3, 8, 8)))
    with pytest.raises(TrainingError, match="made with seed = 0, this run has 1"):
        quantize_tiny(out=out, resume=True, seed=1)
    with pytest.raises(ResultError, match="already contains a result"):
        quantize_tiny(out=out)


def test_a_run_cannot_go_on_on_another_kind_of_device(stopped):
    state = checkpoint.read(stopped / "checkpoint")
    state["configuration"]["device"] = "cuda"
    (stopped / "checkpoint" / "state.pt").write_bytes(checkpoint.encode(state))
    with pytest.raises(TrainingError, match="made with device = 'cuda', this run has 'cpu'") as e:
        quantize_tiny(out=stopped, resume=True)
    assert "on a machine with this device" in e.value.remedy


def test_a_damaged_checkpoint_cannot_be_resumed(stopped):
    path = stopped / "checkpoint" / "state.pt"
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(TrainingError, match="cannot be read"):
        quantize_tiny(out=stopped, resume=True)


@pytest.mark.parametrize(
    ("part", "content"),
    [
        ("record", {"nothing": 1}),
        ("record", None),
        ("run", {}),
        ("run", {"bench": {"student": {"x": torch.zeros(2)}}}),
    ],
    ids=str,
)
def test_a_checkpoint_of_other_parts_cannot_be_resumed(part, content, stopped):
    path = stopped / "checkpoint" / "state.pt"
    state = checkpoint.read(path.parent)
    path.write_bytes(checkpoint.encode(state | {part: content}))
    with pytest.raises(TrainingError, match="does not fit this run") as e:
        quantize_tiny(out=stopped, resume=True)
    assert e.value.where == str(path)


# ------------------------------------------------------------------------ diagnostics


def test_diagnostics_are_kept_beside_the_same_student(labelled, tmp_path):
    whole, folder, data = labelled
    result = quantize_tiny(data=data, out=tmp_path / "out", diagnostics=True)
    assert student_bytes(tmp_path / "out") == student_bytes(folder)
    assert result.manifest["accuracy"] == whole.manifest["accuracy"]
    assert result.manifest["history"] == whole.manifest["history"]
    assert result.manifest["diversity"] == whole.manifest["diversity"]
    found = json.loads((tmp_path / "out" / "diagnostics.json").read_text())
    assert found == result.diagnostics
    assert list(found) == ["schema", "dynamics", "attention", "inconsistency", "adaptability"]
    assert found["dynamics"]["iteration"] == [1, 4]
    assert found["inconsistency"]["real"] is not None
    assert (tmp_path / "out" / "diagnostics.png").read_bytes().startswith(b"\x89PNG")
    assert {"diagnostics.json", "diagnostics.png"} <= set(result.manifest["files"])


def test_without_diagnostics_none_is_computed(monkeypatch, tmp_path):
    def refuse(*_, **__):
        raise AssertionError("computed for nobody")

    for name in ("Dynamics", "diagnose", "observed"):
        monkeypatch.setattr(pipeline, name, refuse)
    result = quantize_tiny(out=tmp_path / "out")
    assert result.diagnostics is None
    assert not any("diagnostics" in path.name for path in (tmp_path / "out").iterdir())


def test_an_interrupted_run_is_diagnosed_as_a_whole_one(tmp_path, monkeypatch):
    options = {"iterations": 24, "method": "gdfq", "diagnostics": True}
    whole = quantize_tiny(**options)
    assert whole.diagnostics["dynamics"]["iteration"] == [10, 20, 24]
    with monkeypatch.context() as patch:
        interrupt_at(patch, 14)
        with pytest.raises(KeyboardInterrupt):
            quantize_tiny(out=tmp_path / "out", **options)
    with pytest.raises(TrainingError, match="made with diagnostics = True"):
        quantize_tiny(out=tmp_path / "out", resume=True, **options | {"diagnostics": False})
    result = quantize_tiny(out=tmp_path / "out", resume=True, **options)
    assert result.diagnostics == whole.diagnostics


def test_a_network_without_feature_maps_cannot_be_diagnosed(tmp_path):
    module = nn.Sequential(nn.Conv2d(3, 4, 8), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 5))
    options = {"method": "gdfq", "placement": "layer-input", "device": "cpu", "diagnostics": True}
    with pytest.raises(NetworkError, match="no ReLU of the network returns one") as e:
        dreamquant.quantize(module, input=TINY_INPUT, out=tmp_path / "out", **options)
    assert e.value.where == "--diagnostics"
    assert not (tmp_path / "out").exists()


# ------------------------------------------------------------------- what is refused


def without_batch_norm():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5))


# Own methods, each of them with no term that reads batch-norm statistics.
PLAIN = replace(
    dreamquant.METHODS["gdfq"],
    name="plain",
    images=replace(dreamquant.METHODS["gdfq"].images, terms=[TeacherCrossEntropy()]),
)
RANGES = (RangesFromNoise(),)
ROUNDING = replace(
    PLAIN, name="rounding", images=None, recovery=RANGES, presets={"quick": Preset()}
)


@pytest.mark.parametrize("method", ["gdfq", "zeroq"])
def test_a_network_without_batch_norm_is_refused_by_methods_that_read_it(method, tmp_path):
    with pytest.raises(NetworkError, match="and it has no batch norm") as e:
        dreamquant.quantize(
            without_batch_norm(), "w4a4", method, input=TINY_INPUT, out=tmp_path / "out"
        )
    assert "choose a method that does not" in e.value.remedy
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("method", [PLAIN, ROUNDING], ids=lambda method: method.name)
def test_a_network_without_batch_norm_is_quantized_by_a_method_that_reads_none(method, tmp_path):
    options = {"device": "cpu", "quiet": True, "iterations": 4}
    result = dreamquant.quantize(
        without_batch_norm(), "w4a4", method, input=TINY_INPUT, out=tmp_path / "out", **options
    )
    assert_loads_alike(result, tmp_path / "out", network=without_batch_norm())
    phases = [phase["kind"] for phase in result.manifest["phases"]]
    assert ("student learns" in phases) == (method is PLAIN)


def test_a_module_needs_an_input():
    with pytest.raises(
        NetworkError, match="the input of a Sequential given in memory is not known"
    ) as e:
        dreamquant.quantize(tiny_module())
    assert "InputSpec" in e.value.remedy


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"bits": "4"}, SchemeError, "'4' does not name bits"),
        ({"bits": "w9a4"}, SchemeError, "9 bits are not supported"),
        ({"first_last": 1}, SchemeError, "1 bit is not supported"),
        ({"placement": "everywhere"}, SchemeError, "'everywhere' is not a choice"),
        ({"override": ("nowhere.*=w8a8",)}, SchemeError, "matches no layer"),
        ({"method": "gdfg"}, MethodError, "there is no method 'gdfg'"),
        ({"preset": "slow"}, MethodError, "has no preset 'slow'"),
        ({"iterations": 0}, TrainingError, "0 iterations are too few"),
        ({"iterations": -5}, TrainingError, "-5 iterations are too few"),
        ({"iterations": None, "budget": "soon"}, TrainingError, "'soon' is not a duration"),
        ({"iterations": None, "budget": "0.001s"}, TrainingError, "are too few"),
        ({"budget": "5min"}, TrainingError, "both iterations and a budget"),
        ({"seed": -1}, TrainingError, "-1 is not a seed"),
        ({"device": "tpu"}, TrainingError, "'tpu' is not a device"),
        ({"precision": "16"}, TrainingError, "'16' is not a precision"),
        ({"data": "/nowhere/at/all"}, DataError, "do not exist"),
        ({"data": demo.HELD_OUT}, DataError, "the network takes 3 x 8 x 8"),
    ],
    ids=str,
)
def test_what_cannot_be_done_is_told_before_anything_is_written(options, error, message, tmp_path):
    with pytest.raises(error, match=message) as e:
        quantize_tiny(out=tmp_path / "out", **options)
    assert e.value.where
    assert not (tmp_path / "out").exists()


# ---------------------------------------------------------------------- architectures


def test_a_module_given_in_memory_needs_its_architecture_to_load(tmp_path):
    result = quantize_tiny(out=tmp_path / "out")
    assert_loads_alike(result, tmp_path / "out", network=tiny_module())
    with pytest.raises(NetworkError, match="given in memory"):
        dreamquant.load(tmp_path / "out")


def test_a_mobilenet_of_timm_converts_trains_saves_and_loads(tmp_path, monkeypatch):
    timm = pytest.importorskip("timm")
    # Fewer images, as they take long.
    for name in ("_SYNTHETIC", "PROBES"):
        monkeypatch.setattr(measuring, name, 32)
    torch.manual_seed(0)
    built = timm.create_model("mobilenetv2_050", num_classes=10)
    torch.save(built.state_dict(), tmp_path / "weights.pt")
    network = dreamquant.load_network(
        "timm:mobilenetv2_050",
        weights=tmp_path / "weights.pt",
        shape=(3, 32, 32),
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
        num_classes=10,
    )
    result = dreamquant.quantize(
        network,
        "w4a4",
        "adadfq",
        preset="paper",  # for its smaller batch
        iterations=4,
        device="cpu",
        quiet=True,
        out=tmp_path / "out",
    )
    coverage = result.manifest["coverage"]
    assert len(coverage["layers"]) == 53
    assert len(coverage["relu_outputs"]) == 35
    assert coverage["left_in_float"] == []
    assert_loads_alike(result, tmp_path / "out")


# ------------------------------------------------------------------------ convergence


def test_recovery_gives_back_accuracy_without_any_data():
    result = quantize_digits(method="adadfq", iterations=40, data=demo.HELD_OUT)
    accuracy = {name: value["top1"] for name, value in result.manifest["accuracy"].items()}
    # Seeds gain 23.4 points, give or take 1.4.
    assert accuracy["ranges_only"] + 15 <= accuracy["student"] <= accuracy["teacher"] + 1
