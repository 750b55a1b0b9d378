"""Means of 3-d tensors equal those of the student in every runtime."""

from __future__ import annotations

import importlib

import numpy as np
import pytest
import torch
from torch import nn

from dreamquant.networks.spec import InputSpec
from dreamquant.quantization.convert import quantize_network
from dreamquant.quantization.scheme import Bits, Scheme

pytest.importorskip("onnxruntime")
pytest.importorskip("openvino")
MANIFEST = {"coverage": {"layers": []}, "method": {"name": "none"}, "protocol": {"seed": 0}}
SCHEMES = {
    "relu-output": Scheme(Bits(4, 4)),
    "element-wise": Scheme(Bits(8, 8), "layer-input", joins=8),
}


class Flattened(nn.Module):
    """The mean over positions, flattened first.

    Args:
        activation: after the convolution.
        mean: of (B, 16, positions), (B, 16).
    """

    def __init__(self, activation, mean):
        super().__init__()
        self.stem, self.conv = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1)
        self.activation, self.mean, self.head = activation, mean, nn.Linear(16, 5)

    def forward(self, x):
        x = self.activation(self.conv(torch.relu(self.stem(x))))
        return self.head(self.mean(x.flatten(2)))


MEANS = {
    "positions": lambda x: x.mean(2),
    "kept": lambda x: x.mean(-1, keepdim=True).flatten(1),
    "tokens": lambda x: x.transpose(1, 2).mean(1),
}


@pytest.mark.parametrize("mean", MEANS.values(), ids=MEANS)
@pytest.mark.parametrize("scheme", SCHEMES.values(), ids=SCHEMES)
def test_a_mean_of_codes_in_three_dimensions_is_the_students_in_every_runtime(scheme, mean):
    onnx_file = importlib.import_module("dreamquant.export.onnx_file").onnx_file
    runtime = importlib.import_module("dreamquant.export.runtime")
    torch.manual_seed(0)
    activation = nn.ReLU() if scheme.placement == "relu-output" else nn.Identity()
    images = torch.randn(40, 3, 8, 8)
    student, _ = quantize_network(Flattened(activation, mean).eval(), scheme, images[:2])
    student.observe(True)
    with torch.no_grad():
        student(images)
    student.fix()
    spec = InputSpec((3, 8, 8), (0.5,) * 3, (0.25,) * 3, 5)
    file = onnx_file(student, MANIFEST, spec, "int8box", layout=None, two_bit=False)
    assert "openvino" in file.verification.agreement
    in_openvino, in_ort = (
        runtime.RUNTIMES[name](file.data, threads=1).run({"images": images.numpy()}, ["logits"])[0]
        for name in ("openvino", "onnxruntime")
    )
    assert np.abs(in_openvino - in_ort).max() < 0.02 * np.abs(in_ort).max()
