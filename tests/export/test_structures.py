"""Shared weights, transposed convolutions with groups, and rows of zeros are exported."""

from __future__ import annotations

import importlib

import pytest
import torch
from torch import nn

from dreamquant.networks.spec import InputSpec
from dreamquant.quantization.convert import quantize_network
from dreamquant.quantization.scheme import Bits, Scheme
from dreamquant.results.student import decode, encode

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
MANIFEST = {"coverage": {"layers": []}, "method": {"name": "none"}, "protocol": {"seed": 0}}
SPEC = InputSpec((3, 12, 12), (0.0,) * 3, (1.0,) * 3, 4)


class Sharing(nn.Module):
    """Two convolutions with one weight."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.near = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.far = nn.Conv2d(8, 8, 3, padding=2, dilation=2, bias=False)
        self.far.weight = self.near.weight
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        x = self.stem(x)
        return self.head((self.near(x).relu() + self.far(x).relu()).mean((2, 3)))


def transposed(groups):
    return nn.Sequential(
        *(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU()),
        *(nn.ConvTranspose2d(8, 12 if groups < 8 else 8, 2, 2, groups=groups),),
        *(nn.BatchNorm2d(12 if groups < 8 else 8), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12 if groups < 8 else 8, 4)),
    )


def with_a_dead_row():
    network = nn.Sequential(
        *(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)),
    )
    network[5].weight.data[3] = 0
    network[0].weight.data[1] = 0
    return network


NETWORKS = {
    "sharing": Sharing,
    "two groups": lambda: transposed(2),
    "depthwise": lambda: transposed(8),
    "dead rows": with_a_dead_row,
}


def images(count=32):
    return torch.randn(count, *SPEC.shape, generator=torch.Generator().manual_seed(0))


def student_of(build, scheme):
    torch.manual_seed(0)
    network = build().train()
    with torch.no_grad():
        for _ in range(3):
            network(images())
    student, _ = quantize_network(network.eval(), scheme, images(2))
    student.observe(True)
    with torch.no_grad():
        student(images())
    student.fix()
    return network, student


@pytest.mark.parametrize(
    ("scheme", "target"),
    [(Scheme(Bits(8, 8), "layer-input", joins=8), "int8box"), (Scheme(Bits(4, 4)), "int4")],
    ids=["w8a8", "w4a4"],
)
@pytest.mark.parametrize("network", NETWORKS)
def test_saved_opened_and_exported(network, scheme, target):
    teacher, student = student_of(NETWORKS[network], scheme)
    again, _ = quantize_network(teacher, scheme, images(2))
    decode(again, encode(student), "here")
    assert torch.equal(again(images()), student(images()))
    onnx_file = importlib.import_module("dreamquant.export.onnx_file").onnx_file
    # It is verified layer by layer, or refused.
    assert onnx_file(student, MANIFEST, SPEC, target, layout=None, two_bit=False).data


def test_a_shared_weight_is_in_the_file_once():
    _, student = student_of(Sharing, Scheme(Bits(8, 8), "layer-input", joins=8))
    onnx_file = importlib.import_module("dreamquant.export.onnx_file").onnx_file
    file = onnx_file(student, MANIFEST, SPEC, "int8box", layout=None, two_bit=False)
    graph = onnx.load_model_from_string(file.data).graph
    shapes = [tuple(tensor.dims) for tensor in graph.initializer]
    assert shapes.count((8, 8, 3, 3)) == 1


def test_results_of_before_groups_had_scales_of_their_own_still_open():
    teacher, student = student_of(NETWORKS["two groups"], Scheme(Bits(4, 4)))
    tensors = encode(student)
    for part in ("scale", "zero_point"):
        tensors[f"3.weight.{part}"] = tensors[f"3.weight.{part}"][:6].clone()
    again, _ = quantize_network(teacher, Scheme(Bits(4, 4)), images(2))
    decode(again, tensors, "here")
    quantizer = again.quantized_weights()["3"].quantizer
    assert quantizer.scale[:6].equal(quantizer.scale[6:])


class Transformer(nn.Module):
    def __init__(self):
        super().__init__()
        self.patches, self.head = nn.Conv2d(3, 16, 4, 4), nn.Linear(16, 4)
        self.encoder = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, activation="gelu")

    def forward(self, x):
        return self.head(self.encoder(self.patches(x).flatten(2).transpose(1, 2)).mean(1))


def test_what_softmax_gives_on_powers_of_two_is_exported_and_multiplied_in_float():
    onnx_file = importlib.import_module("dreamquant.export.onnx_file").onnx_file
    float_twin = importlib.import_module("dreamquant.export.benchmark").float_twin
    _, student = student_of(Transformer, Scheme(Bits(4, 4), "operands", softmax="log2"))
    drawing = importlib.import_module("dreamquant.export.graph").Drawing(student, SPEC)
    options = {"layout": None, "two_bit": False, "drawing": drawing}
    # Of two products of attention, one has an operand without an integer kernel.
    for target, products in (("int8box", (6, 1)), ("int4", (1, 6))):
        file = onnx_file(student, MANIFEST, SPEC, target, **options)
        (reason,) = [each for each in file.in_float if "powers of two" in each]
        assert reason.startswith("encoder.self_attn: ")
        found = file.verification
        assert (found.integer_products, found.float_products) == products
    # The network that a file is timed against computes no logarithm.
    twin = onnx.load_model_from_string(float_twin(file.data)).graph
    assert "Exp" not in {node.op_type for node in twin.node}
