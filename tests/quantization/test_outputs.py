"""Outputs of activation functions are quantized, in every spelling of the function."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dreamquant.errors import NetworkError
from dreamquant.networks.relu_maps import is_relu
from dreamquant.quantization.outputs import ActivationOutputs, in_place_reads, is_activation
from dreamquant.quantization.quantizers import ActivationQuantizer


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def distinct(x):
    return len(x.unique())


def activation(bits=4, learned=False):
    return ActivationQuantizer(bits, learned=learned, clipped_gradient=False, momentum=0.9)


def outputs(*quantizers, written=None, recognise=is_relu):
    written = (False,) * len(quantizers) if written is None else written
    return ActivationOutputs(nn.ModuleList(quantizers), written, recognise)


SPELLINGS = {
    "module": nn.ReLU(),
    "module in place": nn.ReLU(inplace=True),
    "relu6 module": nn.ReLU6(),
    "relu6 module in place": nn.ReLU6(inplace=True),
    "hardtanh from 0": nn.Hardtanh(0, 6),
    "hardtanh by name": lambda x: F.hardtanh(x, min_val=0.0, max_val=1.0),
    "F.relu": F.relu,
    "F.relu in place": lambda x: F.relu(x, inplace=True),
    "F.relu_": F.relu_,
    "F.relu6": F.relu6,
    "torch.relu": torch.relu,
    "torch.relu_": torch.relu_,
    "method": lambda x: x.relu(),
    "method in place": lambda x: x.relu_(),
}
LATER = {
    "leaky": nn.LeakyReLU(),
    "leaky in place": nn.LeakyReLU(inplace=True),
    "prelu": nn.PReLU(),
    "gelu": nn.GELU(),
    "gelu by tanh": nn.GELU("tanh"),
    "elu": F.elu,
    "silu": nn.SiLU(),
    "F.silu": F.silu,
    "hardswish": nn.Hardswish(),
    "mish": nn.Mish(),
    "hardtanh": nn.Hardtanh(),
    "hardtanh from -2": lambda x: F.hardtanh(x, -2.0, 2.0),
    "clamp": lambda x: x.clamp(min=0),
    "clamp in place": lambda x: x.clamp_(0, 6),
    "torch.clamp": lambda x: torch.clamp(x, 0, 6),
    "clip by name": lambda x: torch.clip(input=x, min=0.0),
    "clamp_min": lambda x: x.clamp_min(0),
}
OTHERS = {
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "clamp from 1e-5": lambda x: x.clamp(min=1e-5),
    "clamp from above": lambda x: x.clamp(max=1.0),
    "clamp of a vector": lambda x: x.flatten().clamp(min=0),
}


@pytest.mark.parametrize("relu", SPELLINGS.values(), ids=SPELLINGS.keys())
def test_every_spelling_of_relu_is_quantized(relu):
    quantizer = activation(2)
    quantizer.observing = True
    with outputs(quantizer):
        out = relu(random(100))
    assert distinct(out) <= 4
    assert out.min() == 0


@pytest.mark.parametrize("function", LATER.values(), ids=LATER.keys())
def test_other_activation_functions_are_where_they_are_asked_for(function):
    quantizer = activation(2)
    quantizer.observing = True
    with torch.no_grad(), outputs(quantizer, recognise=is_activation):
        assert distinct(function(random(10, 10))) <= 4
    with torch.no_grad(), outputs():
        assert distinct(function(random(10, 10))) > 4


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS.keys())
def test_nothing_else_is(other):
    with torch.no_grad(), outputs(recognise=is_activation):
        assert distinct(other(random(10, 10))) > 4


def test_relus_are_counted_in_the_order_executed():
    quantizers = nn.ModuleList([activation(2), activation(3), activation(8)])
    for quantizer in quantizers:
        quantizer.observing = True
    shared = nn.ReLU()
    with outputs(*quantizers):
        counts = [distinct(shared(random(2000, seed=seed))) for seed in range(3)]
    assert counts[0] <= 4 < counts[1] <= 8 < counts[2]


@pytest.mark.parametrize("calls", [0, 1, 3])
def test_another_number_of_relus_is_an_error(calls):
    def run():
        with outputs(activation(), activation()):
            for _ in range(calls):
                torch.relu(torch.zeros(1))

    with pytest.raises(
        NetworkError, match="another number of activation functions than the 2 quantized"
    ) as error:
        run()
    assert "--placement layer-input" in error.value.remedy


def test_errors_of_the_network_itself_are_not_covered_up():
    with pytest.raises(ZeroDivisionError), outputs(activation()):
        _ = 1 / 0


# ----------------------------------------------------------------------- in place, as a statement


class Statement(nn.Module):
    """An activation whose result is returned, or stays where its argument was."""

    def __init__(self, form):
        super().__init__()
        self.relu, self.form = nn.ReLU(inplace=True), form

    def forward(self, x):
        x = x * 2
        return self.form(self, x)


def as_statement(net, x):
    net.relu(x)
    return x + 1


def as_value(net, x):
    size = x.shape
    x = net.relu(x)
    return x.view(size) + 1


def as_both(net, x):
    return net.relu(x) + x


def of_a_part(net, x):
    F.relu_(x[:, :5])
    return x + 1


@pytest.mark.parametrize(
    ("form", "written"),
    [(as_statement, True), (as_value, False), (as_both, True), (of_a_part, True)],
)
@pytest.mark.parametrize("learned", [False, True])
def test_what_is_read_of_an_activation_in_place_is_quantized(form, written, learned):
    network, x = Statement(form), random(20, 10)
    assert in_place_reads(network, x, is_relu) == (written,)
    quantizer = activation(2, learned)
    quantizer.observing = True
    expected = form(Statement(form), quantizer(torch.relu(x * 2)))
    if form is of_a_part:
        quantizer(torch.relu(2 * x[:, :5]))
        expected = 2 * x + 1
        expected[:, :5] = quantizer(torch.relu(2 * x[:, :5])) + 1
    quantizer.observing = False
    x.requires_grad_()
    with outputs(quantizer, written=(written,)):
        found = network(x)
    torch.testing.assert_close(found, expected)
    found.sum().backward()
    assert x.grad.abs().sum() > 0
