"""Every family of networks is exported, verified, and runs on integers as its scheme says."""

from __future__ import annotations

import importlib
from collections import Counter

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import networks
from dreamquant.errors import ExportError
from dreamquant.export.benchmark import float_twin
from dreamquant.export.runtime import OrtSession
from dreamquant.networks.spec import InputSpec
from dreamquant.quantization.convert import quantize_network
from dreamquant.quantization.scheme import Bits, Scheme

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
MANIFEST = {"coverage": {"layers": []}, "method": {"name": "none"}, "protocol": {"seed": 0}}


def conv(inputs, outputs, size=3, **options):
    layer = nn.Conv2d(inputs, outputs, size, padding=size // 2, bias=False, **options)
    return nn.Sequential(layer, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


def head(features, classes=5):
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(features, classes))


class Inception(nn.Module):
    """Branches of several sizes, one of them after a pooling, concatenated."""

    def __init__(self):
        super().__init__()
        self.stem = conv(3, 12, stride=2)
        self.one, self.three = conv(12, 8, 1), nn.Sequential(conv(12, 6, 1), conv(6, 8))
        self.pooled = conv(12, 8, 1)
        self.last, self.head = conv(24, 16, stride=2), head(16)

    def forward(self, x):
        x = self.stem(x)
        pooled = self.pooled(F.avg_pool2d(x, 3, 1, 1))
        x = torch.cat([self.one(x), self.three(x), pooled], 1)
        return self.head(self.last(F.max_pool2d(x, 2)))


class ShuffleNet(nn.Module):
    """Half of the channels pass by; the others are convolved, then both are shuffled."""

    def __init__(self):
        super().__init__()
        self.stem = conv(3, 16, stride=2)
        depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False)
        self.convolved = nn.Sequential(conv(8, 8, 1), depthwise, nn.BatchNorm2d(8), conv(8, 8, 1))
        self.last, self.head = conv(16, 16), head(16)

    def forward(self, x):
        passing, x = self.stem(x).chunk(2, 1)
        x = torch.cat([passing, self.convolved(x)], 1)
        b, c, h, w = x.shape
        x = x.view(b, 2, c // 2, h, w).transpose(1, 2).reshape(b, c, h, w)
        return self.head(self.last(x))


class DenseNet(nn.Module):
    """Batch norm before each convolution, on a growing concatenation."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 2, padding=1, bias=False)
        self.norms = nn.ModuleList(nn.BatchNorm2d(8 + 4 * i) for i in range(3))
        self.convs = nn.ModuleList(
            nn.Conv2d(8 + 4 * i, 4, 3, padding=1, bias=False) for i in range(3)
        )
        self.norm, self.head = nn.BatchNorm2d(20), head(20)

    def forward(self, x):
        x = self.stem(x)
        for norm, convolution in zip(self.norms, self.convs, strict=True):
            x = torch.cat([x, convolution(F.relu(norm(x)))], 1)
        return self.head(F.relu(self.norm(x)))


class Own(nn.Module):
    """Shared layers, one ReLU for all, functional calls, a negative batch norm, two branches."""

    def __init__(self):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 8, 3, 2, padding=1), nn.BatchNorm2d(8)
        self.shared = nn.Conv2d(8, 8, 3, padding=1)
        self.norms = nn.ModuleList([nn.BatchNorm2d(8), nn.BatchNorm2d(8)])
        self.left, self.right = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 3, padding=1, groups=4)
        self.relu = nn.ReLU()
        self.hidden, self.head = nn.Linear(8, 12), nn.Linear(12, 5)

    def forward(self, x):
        x = self.relu(self.norm(self.stem(x)))
        for norm in self.norms:
            x = self.relu(norm(self.shared(x)))
        x = torch.relu(self.left(x)) + F.relu(self.right(x))
        x = F.dropout(F.adaptive_avg_pool2d(x, (1, 1)).flatten(1), training=self.training)
        return self.head(F.relu(self.hidden(x)))


def with_constant_channels():
    """What training leaves of some channels: no weight worth the name, and a bias."""
    network = Own()
    network.stem.weight.data[:2] *= 1e-12
    network.right.weight.data[0] = 0
    return network


def torchvision(name, **options):
    models = pytest.importorskip("torchvision.models", exc_type=(ImportError, RuntimeError))
    return getattr(models, name)(num_classes=5, **options)


def resnet(block):
    """Two of torchvision's residual blocks, the second with a convolution in its shortcut."""
    kind = pytest.importorskip("torchvision.models.resnet", exc_type=(ImportError, RuntimeError))
    made = getattr(kind, block)
    inputs, outputs = 4 * made.expansion, 8 * made.expansion
    shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, 2, bias=False), nn.BatchNorm2d(outputs))
    blocks = made(inputs, 4), made(inputs, 8, stride=2, downsample=shortcut)
    return nn.Sequential(conv(3, inputs, stride=2), nn.MaxPool2d(2), *blocks, head(outputs))


FAMILIES = {
    "basic blocks": (lambda _: resnet("BasicBlock"), 32),
    "bottlenecks": (lambda _: resnet("Bottleneck"), 32),
    "mobilenet_v1": (
        lambda networks: networks.MobileNetV1((8, 16, 16, 24, 24), (1, 2, 1, 2), 5),
        32,
    ),
    "mobilenet_v2": (
        lambda _: torchvision(
            "mobilenet_v2",
            width_mult=0.35,
            inverted_residual_setting=[[1, 16, 1, 1], [6, 24, 2, 2]],
        ),
        32,
    ),
    "vgg_bn": (
        lambda _: nn.Sequential(
            *(conv(3, 8), conv(8, 8), nn.MaxPool2d(2), conv(8, 16), nn.MaxPool2d(2)),
            *(nn.Flatten(), nn.Linear(256, 16), nn.ReLU(), nn.Dropout(), nn.Linear(16, 5)),
        ),
        16,
    ),
    "inception": (lambda _: Inception(), 32),
    "shufflenet": (lambda _: ShuffleNet(), 32),
    "densenet": (lambda _: DenseNet(), 32),
    "own": (lambda _: Own(), 32),
    "constant channels": (lambda _: with_constant_channels(), 32),
}
# Its last convolution gives the logits, which stay in float.
FLOAT_CONVOLUTIONS = {"mobilenet_v1": 1}


def randomised(network, size=32):
    """The network with batch norms as far from those of a fresh one as trained ones are."""
    kind = nn.modules.batchnorm._BatchNorm
    norms = [module for module in network.modules() if isinstance(module, kind)]
    for norm in norms:
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        norm.weight.data[::5] *= -1
        nn.init.uniform_(norm.bias, -0.3, 0.3)
        norm.momentum = 0.9
    with torch.no_grad():
        network.train()(torch.randn(16, 3, size, size))
    return network.eval()


@pytest.fixture
def student_of():
    def make(family, scheme):
        build, size = FAMILIES[family]
        torch.manual_seed(0)
        network = randomised(build(networks), size)
        student, _ = quantize_network(network, scheme, torch.zeros(2, 3, size, size))
        student.observe(True)
        with torch.no_grad():
            # Twice, as in training: the range of one batch ends on a value that its layer can
            # give, and then others of that channel lie right between two codes.
            student(torch.randn(16, 3, size, size))
            student(torch.randn(16, 3, size, size))
        student.fix()
        return student, InputSpec((3, size, size), (0.5,) * 3, (0.25,) * 3, 5)

    return make


def exported(student, spec, target):
    onnx_file = importlib.import_module("dreamquant.export.onnx_file").onnx_file
    return onnx_file(student, MANIFEST, spec, target, layout=None, two_bit=False)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_convolution_runs_on_integers(student_of, family):
    scheme = Scheme(Bits(4, 4), "layer-input", joins=8)
    found = exported(*student_of(family, scheme), "int8box")
    in_float = FLOAT_CONVOLUTIONS.get(family, 0)
    assert found.verification.float_convolutions == in_float, found.in_float
    assert found.verification.integer_convolutions > 0


def test_float_twin_keeps_the_padding(student_of):
    student, spec = student_of("mobilenet_v1", Scheme(Bits(4, 4), "layer-input", joins=8))
    twin = float_twin(exported(student, spec, "int8box").data)
    kinds = Counter(node.op_type for node in onnx.load_model_from_string(twin).graph.node)
    # One of the image, and one before each depthwise convolution of stride 2, after a ReLU6.
    assert kinds["Pad"] == 3
    assert not kinds["QuantizeLinear"] + kinds["DequantizeLinear"]
    for quantizer in student.activation_quantizers().values():
        quantizer.register_forward_hook(lambda _, inputs, __: inputs[0])
    images = torch.randn(4, *spec.shape) / 4  # so that no ReLU6 cuts at 6, which the twin does not
    (found,) = OrtSession(twin, threads=1).run({"images": images.numpy()}, ["logits"])
    with torch.no_grad():
        assert torch.allclose(torch.from_numpy(found), student(images), atol=1e-4)


@pytest.mark.parametrize("target", ["int8box", "int4"])
@pytest.mark.parametrize("family", ["densenet", "own"])
def test_what_runs_in_float_is_right_too_and_told(student_of, family, target):
    student, spec = student_of(family, Scheme(Bits(3, 4), "relu-output", first_last_bits=8))
    found = exported(student, spec, target)
    assert found.verification.float_convolutions > 0
    assert found.in_float
    assert all(": " in reason for reason in found.in_float)


class Pooled(nn.Module):
    """Convolution, batch norm, ReLU, max pooling, and again, in as many dimensions as given."""

    def __init__(self, dimensions, between=None):
        super().__init__()
        kind = f"{dimensions}d"
        layer, norm = getattr(nn, f"Conv{kind}"), getattr(nn, f"BatchNorm{kind}")
        self.dimensions = dimensions
        self.between = between or getattr(nn, f"MaxPool{kind}")(2)
        self.a, self.b = layer(3, 8, 3, padding=1), layer(8, 8, 3, padding=1)
        self.norms = nn.ModuleList([norm(8), norm(8)])
        self.pool, self.head = getattr(nn, f"AdaptiveAvgPool{kind}")(1), nn.Linear(8, 5)

    def forward(self, x):
        b, c, h, w = x.shape
        x = x.view(b, c, *{1: (h * w,), 2: (h, w), 3: (4, h // 4, w)}[self.dimensions])
        x = self.between(self.norms[0](self.a(x)).relu())
        x = self.norms[1](self.b(x)).relu()
        return self.head(self.pool(x).flatten(1))


class Moved(nn.Module):
    """What only moves or selects values."""

    def forward(self, x):
        return x[:, :, 1:-1].transpose(2, 3).unsqueeze(1).squeeze(1).flatten(2, 2)


@pytest.mark.parametrize("bits", ["w4a4", "w8a8"])
@pytest.mark.parametrize(
    ("dimensions", "between"), [(1, None), (2, None), (3, None), (2, Moved())], ids=str
)
@pytest.mark.parametrize("placement", ["relu-output", "layer-input"])
def test_what_runtimes_move_quantizers_across_changes_nothing(
    student_of, monkeypatch, dimensions, between, placement, bits
):
    monkeypatch.setitem(FAMILIES, "pooled", (lambda _: Pooled(dimensions, between), 16))
    student, spec = student_of("pooled", Scheme(Bits.parse(bits), placement))
    found = exported(student, spec, "int8box").verification
    assert found.exact_on == ("AVX2", "AVX-512", "VNNI")
    assert not any("deviate" in warning for warning in found.warnings)


def without_a_form(exporter):
    return [
        "  where:  Own",
        f"  remedy: write that part of its forward pass with operations that `{exporter}` "
        f"supports, "
        "for any number of images",
    ]


def test_a_forward_pass_that_no_program_can_hold(student_of):
    program = importlib.import_module("dreamquant.export.program").program
    student, spec = student_of("own", Scheme(Bits(4, 4), "layer-input"))
    student.network.head.register_forward_hook(
        lambda _, __, logits: logits * 2 if logits.sum() > 0 else logits
    )
    with pytest.raises(ExportError, match=r"^the network cannot be exported: ") as refused:
        program(student, MANIFEST, spec)
    assert str(refused.value).splitlines()[1:] == without_a_form("torch.export")


def test_an_operation_without_an_onnx_form(student_of):
    student, spec = student_of("own", Scheme(Bits(4, 4), "layer-input"))
    head = student.network.head
    head.register_forward_hook(
        lambda _, __, logits: logits + torch.linalg.eigvals(logits.T @ logits).real
    )
    with pytest.raises(ExportError) as refused:
        exported(student, spec, "int8box")
    lines = str(refused.value).splitlines()
    assert lines[0].startswith("the network cannot be exported: ")
    assert lines[1:] == without_a_form("torch.onnx.export")
