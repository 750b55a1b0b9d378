"""Exported transformers run products on integers and take any number of images."""

from __future__ import annotations

import importlib

import pytest
import torch
from torch import nn

from dreamquant.errors import ExportError
from dreamquant.networks.attention import split_attention
from dreamquant.networks.demo.transformer import Transformer
from dreamquant.networks.spec import InputSpec
from dreamquant.quantization.convert import quantize_network
from dreamquant.quantization.scheme import Bits, Scheme

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
MANIFEST = {"coverage": {"layers": []}, "method": {"name": "none"}, "protocol": {"seed": 0}}
SPEC = InputSpec((1, 8, 8), (0.5,), (0.25,), 10)


class Counted(nn.Module):
    """A class token for as many images as ``len`` or ``int`` counts; attention of PyTorch's own."""

    def __init__(self, count):
        super().__init__()
        self.count, self.embed = count, nn.Linear(8, 16)
        self.cls = nn.Parameter(torch.randn(1, 1, 16))
        layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, activation="gelu")
        self.blocks = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(16, 10)

    def forward(self, x):
        x = self.embed(x.flatten(1, 2))
        x = torch.cat([self.cls.expand(self.count(x), -1, -1), x], 1)
        return self.head(self.blocks(x)[:, 0])


def student_of(network, bits):
    images = torch.randn(32, *SPEC.shape)
    student, _ = quantize_network(
        split_attention(network.eval()), Scheme(bits, "operands"), images[:2]
    )
    student.observe(True)
    with torch.no_grad():
        student(images)
    student.fix()
    return student


def exported(student, target):
    onnx_file = importlib.import_module("dreamquant.export.onnx_file").onnx_file
    return onnx_file(student, MANIFEST, SPEC, target, layout=None, two_bit=False)


@pytest.mark.parametrize("bits", [Bits(8, 8), Bits(4, 4)], ids=str)
def test_every_product_runs_on_integers(bits):
    torch.manual_seed(0)
    embed = nn.Conv2d(1, 16, 4, stride=4)
    found = exported(student_of(Transformer(embed, 4, 16, depth=2, heads=2), bits), "int8box")
    # Of each block four layers and two products of attention; and the classifier.
    assert found.verification.integer_products == 2 * 6 + 1
    assert found.verification.float_products == 0
    assert found.in_float == ("embed: its result is read by Concat before it is quantized",)


def test_four_bit_weights_leave_products_of_activations_on_integers():
    torch.manual_seed(0)
    found = exported(student_of(Counted(lambda x: len(x)), Bits(4, 4)), "int4")
    assert found.verification.integer_products == 2 * 2
    assert all("its weight is stored in INT4" in reason for reason in found.in_float)


def test_a_count_of_images_that_cannot_vary_is_refused_in_words():
    student = student_of(Counted(lambda x: int(x.shape[0])), Bits(8, 8))
    with pytest.raises(ExportError, match="fixes the number of images as a constant"):
        exported(student, "int8box")
