"""Average pools over padding equal those of the student in every runtime."""

from __future__ import annotations

import importlib

import pytest
import torch
from torch import nn

from dreamquant.networks.spec import InputSpec
from dreamquant.quantization.convert import quantize_network
from dreamquant.quantization.scheme import Bits, Scheme

pytest.importorskip("onnxruntime")
pytest.importorskip("openvino")
MANIFEST = {"coverage": {"layers": []}, "method": {"name": "none"}, "protocol": {"seed": 0}}
POOLS = {
    "on all sides": nn.AvgPool2d(3, 2, 1),
    "unequal sides": nn.AvgPool2d((3, 5), (1, 2), (1, 2)),
    "places left over": nn.AvgPool2d(2, 3, (0, 1)),
    "rounded up": nn.AvgPool2d(3, 2, 1, ceil_mode=True),
    "padding not counted": nn.AvgPool2d(3, 2, 1, count_include_pad=False),
    "padded before": nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), nn.AvgPool2d(3, 2)),
    "twice": nn.Sequential(nn.AvgPool2d(3, 1, 1), nn.AvgPool2d(3, 2, 1)),
}


@pytest.mark.parametrize("pool", POOLS.values(), ids=POOLS)
@pytest.mark.parametrize("after", [nn.Identity(), nn.ReLU()], ids=["signed", "positive"])
def test_a_pool_over_padding_is_the_students_in_every_runtime(pool, after) -> None:
    onnx_file = importlib.import_module("dreamquant.export.onnx_file").onnx_file
    runtime = importlib.import_module("dreamquant.export.runtime")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        stem, head = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 4, 1)
        network = nn.Sequential(stem, after, pool, head).eval()
        images = torch.randn(16, 3, 9, 12) + 1
    scheme = Scheme(Bits(8, 8), "layer-input", joins=8)
    student, _ = quantize_network(network, scheme, images[:2])
    student.observe(True)
    with torch.no_grad():
        student(images)
        student.fix()
        wanted = student(images)
    spec = InputSpec((3, 9, 12), (0.5,) * 3, (0.25,) * 3, 4, task="regression")
    file = onnx_file(student, MANIFEST, spec, "int8box", layout=None, two_bit=False)
    assert list(file.verification.agreement) == ["onnxruntime", "openvino"]
    for name in ("onnxruntime", "openvino"):
        session = runtime.RUNTIMES[name](file.data, threads=1)
        (found,) = session.run({"images": images.numpy()}, list(spec.outputs))
        assert (torch.as_tensor(found) - wanted).abs().max() < 0.05 * wanted.abs().max()
