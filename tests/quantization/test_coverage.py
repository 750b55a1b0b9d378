"""Everything that is multiplied or stored in float is named and counted."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dreamquant.errors import NetworkError, SchemeError
from dreamquant.quantization.convert import quantize_network
from dreamquant.quantization.scheme import Bits, Scheme

INPUTS = Scheme(Bits(4, 4), "layer-input")
OUTPUTS = Scheme(Bits(4, 4))


def images(count=2):
    return torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    """A stem, a middle by a subclass, and a head."""

    def __init__(self):
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(8, 5)

    def forward(self, x):
        return self.head(self.middle(torch.relu(self.stem(x))).mean((2, 3)))


def covered(network, scheme=INPUTS):
    torch.manual_seed(0)
    return quantize_network(network().eval(), scheme, images())[1]


STEM, HEAD = 64 * 8 * 27, 40


class Pooled(Net):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(8, 8, 3, padding=1)

    def middle(self, x):
        return F.relu6(self.conv(F.max_pool2d(x, 2)))


def test_multiplications_are_those_of_one_image():
    found = covered(Pooled)
    assert [layer.multiplications for layer in found.layers] == [STEM, 16 * 8 * 72, HEAD]
    assert found.multiplications == STEM + 16 * 8 * 72 + HEAD
    assert (found.float_multiplications, found.float_weights) == (0, ())


def test_inputs_that_are_not_rounded_are_told_and_those_behind_a_pooling_are_not():
    found = covered(Pooled, OUTPUTS)
    # The image is not rounded, and means of rounded values lie between codes.
    assert [layer.input_on_grid for layer in found.layers] == [False, True, False]
    assert found.float_multiplications == STEM + HEAD


class Recurrent(Net):
    def __init__(self, kind=nn.LSTM):
        super().__init__()
        self.rnn = kind(8, 4, batch_first=True)
        self.back = nn.Linear(4, 8)

    def middle(self, x):
        x = self.rnn(x.flatten(2).transpose(1, 2))[0]
        return self.back(x).transpose(1, 2)[..., None]


class Gated(Recurrent):
    def __init__(self):
        super().__init__(nn.GRU)


class Mixed(Net):
    def __init__(self):
        super().__init__()
        self.mix = nn.Bilinear(8, 8, 8)

    def middle(self, x):
        x = x.mean((2, 3))
        return self.mix(x, x)[..., None, None]


class Scripted(Net):
    def __init__(self):
        super().__init__()
        self.block = torch.jit.script(nn.Sequential(nn.Conv2d(8, 8, 1), nn.ReLU()))

    def middle(self, x):
        return self.block(x)


class Standardised(Net):
    def __init__(self):
        super().__init__()
        self.conv = _Standardised(8, 8, 1)

    def middle(self, x):
        return torch.relu(self.conv(x))


class _Standardised(nn.Conv2d):
    def forward(self, x):
        return F.conv2d(x, (self.weight - self.weight.mean()) / self.weight.std(), self.bias)


@pytest.mark.parametrize(
    ("network", "name", "multiplications", "weights"),
    [
        (Recurrent, "LSTM rnn", 64 * 16 * 12, 16 * 12),
        (Gated, "GRU rnn", 64 * 12 * 12, 12 * 12),
        (Mixed, "Bilinear mix", 8**3, 8**3),
        (Scripted, "TorchScript block", 64 * 64, 64),
    ],
)
@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*")
def test_what_no_quantizer_reaches_is_named_and_counted(network, name, multiplications, weights):
    found = covered(network)
    assert found.float_multiplications == multiplications
    assert any(name in left for left in found.left_in_float)
    assert sum(weight.count for weight in found.float_weights) == weights


def test_a_deformable_convolution_is_named_and_counted():
    ops = pytest.importorskip("torchvision.ops")

    class Deformed(Net):
        def __init__(self):
            super().__init__()
            self.deform = ops.DeformConv2d(8, 8, 1)

        def middle(self, x):
            return self.deform(x, x.new_zeros(len(x), 2, 8, 8))

    found = covered(Deformed)
    assert found.left_in_float == ("DeformConv2d deform",)
    assert found.float_multiplications == 64 * 64
    assert [weight.name for weight in found.float_weights] == ["deform.weight"]


def test_a_weight_computed_in_the_forward_pass_is_not_on_its_grid():
    found = covered(Standardised)
    assert [layer.weight_on_grid for layer in found.layers] == [True, False, True]
    assert found.float_multiplications == 64 * 64
    assert found.left_in_float == ()


def test_embeddings_are_weights_in_float():
    class Embedded(Net):
        def __init__(self):
            super().__init__()
            self.embedding = nn.Embedding(3, 8)

        def middle(self, x):
            return x + self.embedding(torch.ones(len(x), dtype=torch.long))[..., None, None]

    found = covered(Embedded)
    assert [(weight.name, weight.count) for weight in found.float_weights] == [
        ("embedding.weight", 24)
    ]


def test_activations_in_place_as_statements_are_covered():
    class Statements(Net):
        def __init__(self):
            super().__init__()
            self.relu, self.conv = nn.ReLU(inplace=True), nn.Conv2d(8, 8, 1)

        def middle(self, x):
            x = self.conv(x)
            self.relu(x)
            return self.conv(x)

    assert [layer.input_on_grid for layer in covered(Statements, OUTPUTS).layers] == [
        False,
        True,
        False,
    ]


def test_a_run_whose_rounding_of_activations_changes_nothing_is_refused():
    class Unused(Net):
        def forward(self, x):
            x = self.stem(x)
            F.relu(x)
            return self.head(x.mean((2, 3)))

    with pytest.raises(SchemeError, match="rounding activations changes nothing") as refused:
        covered(Unused, OUTPUTS)
    assert refused.value.remedy == "use --placement layer-input"
    covered(Unused, INPUTS)


def test_the_student_is_left_as_it_was():
    torch.manual_seed(0)
    student, _ = quantize_network(Pooled().eval(), OUTPUTS, images())
    for quantizer in student.activation_quantizers().values():
        assert (float(quantizer.scale), float(quantizer.range.weights)) == (1.0, 0.0)
        assert not quantizer._forward_hooks


# -------------------------------------------------------------------------------- shared weights


class Shared(Net):
    def __init__(self):
        super().__init__()
        self.one, self.two = (nn.Conv2d(8, 8, 3, padding=d, dilation=d, bias=False) for d in (1, 2))
        self.two.weight = self.one.weight

    def middle(self, x):
        return torch.relu(self.one(x)) + torch.relu(self.two(x))


@pytest.mark.parametrize("scheme", [INPUTS, OUTPUTS, Scheme(Bits(3, 3), "layer-input", joins=8)])
def test_layers_that_share_a_weight_share_its_quantizer(scheme):
    student, found = quantize_network(Shared().eval(), scheme, images())
    one, two = (student.network.get_submodule(name) for name in ("one", "two"))
    assert one.parametrizations.weight[0] is two.parametrizations.weight[0]
    assert one.parametrizations.weight.original is two.parametrizations.weight.original
    assert set(student.quantized_weights()) == {"stem", "one", "head"}
    assert [(layer.name, layer.weights, layer.shares) for layer in found.layers] == [
        ("stem", 216, None),
        ("one", 576, None),
        ("two", 0, "one"),
        ("head", 40, None),
    ]
    assert (found.float_multiplications == 0) == (scheme is not OUTPUTS)


def test_an_embedding_that_shares_a_layers_weight_is_quantized_with_it():
    class Tied(Net):
        def __init__(self):
            super().__init__()
            self.embedding = nn.Embedding(5, 8)
            self.embedding.weight = self.head.weight

        def middle(self, x):
            return x + self.embedding(torch.ones(len(x), dtype=torch.long))[..., None, None]

    student, found = quantize_network(Tied().eval(), Scheme(Bits(2, 4), "layer-input"), images())
    assert found.float_weights == ()
    assert "embedding.weight" not in student.float_state()
    assert student.network.embedding.weight.equal(student.network.head.weight)


def test_a_weight_shared_along_another_axis_is_refused_with_a_remedy_that_works():
    class Across(Net):
        def __init__(self):
            super().__init__()
            self.up = nn.ConvTranspose2d(8, 8, 1)
            self.down = nn.Conv2d(8, 8, 1)
            self.up.weight = self.down.weight

        def middle(self, x):
            return torch.relu(self.up(self.down(x)))

    network = Across().eval()
    with pytest.raises(NetworkError, match="up shares its weight") as refused:
        quantize_network(network, INPUTS, images())
    assert "nn.Parameter(layer.weight.clone())" in refused.value.remedy
    network.up.weight = nn.Parameter(network.up.weight.clone())
    quantize_network(network, INPUTS, images())
