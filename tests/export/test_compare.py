"""Tolerances of the comparison, and limits of an optional runtime."""

from __future__ import annotations

import importlib

import pytest
import torch
from torch import nn

from dreamquant.quantization.convert import quantize_network
from dreamquant.quantization.scheme import Bits, Scheme

pytest.importorskip("onnxruntime")
compare = importlib.import_module("dreamquant.export.compare")
verify = importlib.import_module("dreamquant.export.verify")
job = importlib.import_module("dreamquant.export.job")


def test_of_few_codes_one_may_flip():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten())
    network.append(nn.Linear(8, 3))
    images = torch.randn(6, 1, 4, 4)
    student, _ = quantize_network(network.eval(), Scheme(Bits(4, 4)), images)
    student.observe(True)
    student(images)
    student.fix()
    logits = compare.record(student, images).outputs
    (quantizer,) = student.activation_quantizers().values()
    # Of 8 codes, 0.1 % are none; one step of one of them moves the logits so far at least.
    least = (quantizer.scale * network[4].weight.abs().amax(0).min()).item() / 2
    (sensitivity,) = compare.sensitivity_of(student, images, logits)
    assert sensitivity > least


@pytest.mark.parametrize(
    ("lacking", "said"),
    [
        ("openvino", "openvino cannot run the file: no operation Some"),
        ("onnxruntime", "onnxruntime cannot run the file: no operation Some"),
    ],
)
def test_a_runtime_that_lacks_an_operation_is_a_warning(
    saved, tmp_path, monkeypatch, lacking, said
):
    pytest.importorskip("openvino")
    session = verify._session

    def incomplete(runtime, data, exact):
        if runtime == lacking:
            raise RuntimeError("no operation Some")
        return session(runtime, data, exact)

    monkeypatch.setattr(verify, "_session", incomplete)
    (file,) = job.export_result(saved, ["int8box"], to=tmp_path / "to")
    assert said in file.verification.warnings
    assert lacking not in file.verification.agreement
    assert len(file.verification.agreement) == 1
    assert file.path.is_file()


def test_what_another_runtime_does_otherwise_is_a_warning(saved, tmp_path, monkeypatch):
    pytest.importorskip("openvino")
    session = verify._session

    class Deviating:
        def __init__(self, inner):
            self.inner = inner

        def run(self, feed, outputs):
            return [-found for found in self.inner.run(feed, outputs)]

    def deviating(runtime, data, exact):
        inner = session(runtime, data, exact)
        return Deviating(inner) if runtime == "openvino" else inner

    monkeypatch.setattr(verify, "_session", deviating)
    (file,) = job.export_result(saved, ["int8box"], to=tmp_path / "to")
    (warning,) = file.verification.warnings
    assert warning.startswith("in openvino logits deviate by ")
    assert list(file.verification.agreement) == ["onnxruntime"]


def test_means_of_codes_lie_between_two_codes_and_are_known_to():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    network.append(nn.Linear(2, 3))
    images = torch.randn(64, 1, 6, 6)
    scheme = Scheme(Bits(4, 4), placement="layer-input", joins=4)
    student, _ = quantize_network(network.eval(), scheme, images)
    student.observe(True)
    student(images)
    student.fix()
    stored, pooled = list(student.activation_quantizers().values())[1:]
    pooled.place(stored.scale, stored.zero_point)
    tied = compare.record(student, images).tied
    assert 0.01 < tied[-1].mean() < 0.2  # of means over 16, one in 16
    assert tied[-2].mean() < 0.01
