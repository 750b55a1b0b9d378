"""Networks that are not classifiers are quantized, saved, opened, evaluated and exported."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dreamquant.errors import MethodError, NetworkError
from dreamquant.jobs.quantize import quantize
from dreamquant.methods import METHODS
from dreamquant.methods.any_output import for_task
from dreamquant.methods.method import Preset
from dreamquant.networks.load import wrap_module
from dreamquant.networks.outputs import names_of, tensors_of
from dreamquant.networks.spec import InputSpec
from dreamquant.recovery.train import Train
from dreamquant.results.reopen import load, open_result
from dreamquant.terms.contract import weighted
from dreamquant.terms.label_distillation import LabelDistillation

QUICK = {"seed": 0, "device": "cpu", "precision": "32", "threads": 1, "quiet": True}


def body(outputs: int) -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers = [nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU()]
        return nn.Sequential(*layers, nn.Conv2d(8, outputs, 3, padding=1))


class Detector(nn.Module):
    """Two tensors of two shapes, one of them nested."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.score = body(4), nn.Conv2d(4, 1, 1)

    def forward(self, x: Tensor) -> dict[str, object]:
        found = self.body(x)
        return {"boxes": (found,), "score": self.score(found.relu()).sigmoid()}


class Labels(nn.Module):
    def __init__(self, labels: int, *ends: nn.Module) -> None:
        super().__init__()
        self.body, self.ends = body(labels), nn.Sequential(*ends)

    def forward(self, x: Tensor) -> Tensor:
        return self.ends(self.body(x).mean((2, 3)))  # type: ignore[no-any-return]


class Frames(nn.Module):
    """Features of rank two, such as frames of a spectrum."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 5))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x).mean(1)  # type: ignore[no-any-return]


def images(task: str, classes: int = 0) -> InputSpec:
    return InputSpec((3, 8, 8), (0.5,) * 3, (0.25,) * 3, classes, task=task)  # type: ignore[arg-type]


FEATURES = InputSpec((9, 6), (0.0,), (1.0,), 5)
KINDS = {
    "regression": (Detector(), images("regression")),
    "segmentation": (body(4), images("segmentation", 4)),
    "multi-label": (Labels(5, nn.Sigmoid()), images("multi-label", 5)),
    "one logit": (Labels(1), images("classification", 2)),
    "features": (Frames(), FEATURES),
}


@pytest.mark.parametrize("kind", KINDS)
def test_any_task_goes_the_whole_way(kind, tmp_path):
    pytest.importorskip("onnxruntime")
    from dreamquant.export.job import export_result
    from dreamquant.export.runtime import open_onnx

    network, spec = KINDS[kind]
    result = quantize(network, "w8a8", "squant", input=spec, out=tmp_path / "out", **QUICK)
    told = result.manifest["network"]["input"]
    assert told["task"] == spec.task
    x = torch.rand(3, *spec.shape)
    wanted, given = network.eval()(x), load(tmp_path / "out", network=network)(x)
    assert names_of(given) == names_of(wanted)
    for ours, aim in zip(tensors_of(given), tensors_of(wanted), strict=True):
        assert ours.shape == aim.shape
    opened = open_result(tmp_path / "out", network=network)
    (file,) = export_result(opened, ["int8box"], to=tmp_path / "to")
    assert file.verification.flipped < 0.01
    exported = open_onnx(file.path)
    found = exported(x)
    if kind == "regression":
        assert list(found) == ["boxes.0", "score"]
    for ours, aim in zip(tensors_of(found), tensors_of(opened.model(x)), strict=True):
        assert torch.allclose(ours, aim, atol=0.05 * float(aim.abs().max()))


@pytest.mark.parametrize("method", ["gdfq", "hast", "kmdfq"])
def test_a_method_that_learns_by_classes_is_refused_before_it_runs(method):
    with pytest.raises(MethodError, match="cannot be used for the task regression") as caught:
        quantize(Detector(), "w8a8", method, input=images("regression"), **QUICK)
    assert "squant" in caught.value.remedy
    assert "gdfq" not in caught.value.remedy


def test_images_do_without_the_terms_that_need_classes(tmp_path):
    result = quantize(
        Detector(), "w8a8", "minutes", input=images("regression"), iterations=2, **QUICK
    )
    terms = [term["part"] for term in result.manifest["method"]["images"]["terms"]]
    assert terms == ["BatchNormStatistics"]
    assert any(
        "without TeacherCrossEntropy" in note for note in result.manifest["network"]["notes"]
    )
    agreement = result.manifest["agreement"]
    assert list(agreement["outputs"]) == ["boxes.0", "score"]
    assert agreement["percent"] == pytest.approx(sum(agreement["outputs"].values()) / 2)


def test_several_labels_are_scored(tmp_path):
    network, spec = KINDS["multi-label"]
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (20, 8, 8, 3), dtype=np.uint8)
    with torch.no_grad():
        teacher = wrap_module(network, spec).module
        seen = teacher(torch.from_numpy((pixels / 255 - 0.5) / 0.25).float().permute(0, 3, 1, 2))
    np.savez(tmp_path / "data.npz", images=pixels, labels=(seen > 0).numpy().astype(np.uint8))
    result = quantize(network, "w8a8", "squant", input=spec, data=tmp_path / "data.npz", **QUICK)
    accuracy = result.manifest["accuracy"]
    assert accuracy["teacher"]["scores"]["labels right"] == 100
    assert accuracy["student"]["scores"]["labels right"] > 90


def test_independent_labels_are_distilled_by_a_sigmoid_each():
    network, spec = KINDS["multi-label"]
    served = for_task(METHODS["hast"].resolved("quick", spec.shape), "multi-label")
    assert [term.name for term in weighted(served.images.terms)] == ["BatchNormStatistics"]
    train = next(part for part in served.recovery if isinstance(part, Train))
    distillation, attention = weighted(train.terms)
    assert distillation == 20 * LabelDistillation(20, mean=False)
    assert attention.name == "ChannelAttention"
    few = Preset(
        images={"size": 4, "batch": 4, "steps": 1},
        recovery={"Train": {"iterations": 2, "batch": 4}},
    )
    short = replace(METHODS["hast"], presets={"quick": few})
    result = quantize(network, "w8a8", short, input=spec, **QUICK)
    assert any("LabelDistillation in place of" in n for n in result.manifest["network"]["notes"])


def test_a_generator_that_takes_classes_is_refused_for_independent_labels():
    network, spec = KINDS["multi-label"]
    with pytest.raises(MethodError, match=r"task multi-label: .*class for each image") as caught:
        quantize(network, "w8a8", "adadfq", input=spec, **QUICK)
    assert "hast" in caught.value.remedy


def test_an_output_that_is_no_tensor_is_refused():
    class Odd(nn.Module):
        def forward(self, x: Tensor) -> object:
            return {"x": x, "scale": 2.0}

    with pytest.raises(NetworkError, match="float, which is not a tensor"):
        wrap_module(Odd(), images("regression"))


def test_outputs_of_another_task_are_refused():
    with pytest.raises(NetworkError, match=r"returns dict of 2 tensors") as caught:
        wrap_module(Detector(), images("classification", 2))
    assert "--task regression" in caught.value.remedy
