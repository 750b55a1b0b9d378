"""A tensor that several operations read is quantized once for all of them."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dreamquant.errors import NetworkError, SchemeError
from dreamquant.quantization.convert import quantize_network
from dreamquant.quantization.norms import match_norms
from dreamquant.quantization.scheme import Bits, Scheme
from dreamquant.quantization.stored import survey

SCHEME = Scheme(Bits(4, 4), "layer-input", joins=8)


class Residual(nn.Module):
    """A sum, written in one of several ways."""

    def __init__(self, total):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.conv, self.conv_norm = nn.Conv2d(4, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
        self.head, self.total = nn.Linear(4, 3), total

    def forward(self, x):
        x = F.relu(self.norm(self.stem(x)))
        return self.head(self.total(self.conv_norm(self.conv(x)), x).mean((2, 3)))


def in_place(x, y):
    x += y
    return x


def method(x, y):
    x.add_(y)
    return x


SUMS = {"operator": lambda x, y: x + y, "torch": torch.add, "in place": in_place, "add_": method}


def images():
    return torch.randn(8, 3, 6, 6, generator=torch.Generator().manual_seed(0))


def student(total=SUMS["operator"], scheme=SCHEME):
    torch.manual_seed(0)
    network = Residual(total).eval()
    made, coverage = quantize_network(network, scheme, images())
    made.observe(True)
    with torch.no_grad():
        made(images())
    return made, coverage


@pytest.mark.parametrize("total", SUMS)
def test_every_way_of_writing_a_sum_is_the_same(total):
    made, coverage = student(SUMS[total])
    # What the sum reads, one of which the convolution reads too, and what is pooled.
    assert coverage.stored == (8, 8, 8)
    made.fix()
    reference, _ = student()
    reference.fix()
    assert torch.equal(made(images()), reference(images()))


def test_readers_see_what_is_stored():
    made, _ = student()
    made.fix()
    seen = []
    made.network.conv.input_quantizer.register_forward_pre_hook(lambda _, x: seen.append(x[0]))
    made(images())
    grid = seen[0] / made.stored[0].scale
    assert torch.allclose(grid, grid.round(), atol=1e-3)
    assert len(seen[0].unique()) > 16


def test_gradients_flow_through_a_sum_in_place_with_learned_ranges():
    made, _ = student(in_place, Scheme(Bits(4, 4), "layer-input", ranges="learned", joins=8))
    made.observe(False)
    made(images()).square().sum().backward()
    assert all(quantizer.growth.grad is not None for quantizer in made.stored)
    assert made.network.stem.parametrizations.weight.original.grad.abs().sum() > 0


def test_a_tensor_that_one_layer_reads_is_not_stored():
    chain = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 3))
    found = survey(chain.eval(), ["0", "3"], images())
    assert set(found.reads) == {None}
    assert found.norms == {"1": "0"}


def test_a_forward_pass_that_reads_more_is_refused():
    made, _ = student()
    made.network.total = lambda x, y: x + y + y
    with pytest.raises(NetworkError, match="read another number of tensors"):
        made(images())
    made.network.total = lambda x, y: x
    with pytest.raises(NetworkError, match="read another number of tensors"):
        made(images())


class Standardized(nn.Conv2d):
    """Its weight has mean 0, as computed in its own forward pass."""

    def forward(self, x):
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        return F.conv2d(x, weight, self.bias, padding=self.padding)


def test_what_a_layer_does_with_its_weight_reads_no_feature_map():
    torch.manual_seed(0)
    network = Residual(SUMS["operator"])
    network.conv = Standardized(4, 4, 3, padding=1)
    made, coverage = quantize_network(network.eval(), SCHEME, images())
    made.observe(True)
    with torch.no_grad():
        made(images())
    assert made(images()).shape == (8, 3)
    assert [each.name for each in coverage.layers if not each.weight_on_grid] == ["conv"]


def test_joins_need_quantized_layer_inputs():
    with pytest.raises(SchemeError) as refused:
        Scheme(Bits(4, 4), joins=8)
    assert str(refused.value) == (
        "what sums, concatenations and poolings read is stored between layers whose inputs are "
        "quantized\n"
        "  where:  --elementwise\n"
        "  remedy: add --placement layer-input"
    )
    with pytest.raises(SchemeError, match="9 bits are not supported"):
        Scheme(Bits(4, 4), "layer-input", joins=9)


# ---------------------------------------------------------------------------------- biases


def test_biases_are_whole_once_folded():
    made, _ = student()
    made.network.norm.weight.data.copy_(torch.tensor([0.5, -0.5, 0.0, 2.0]))
    made.network.norm.bias.data.uniform_(-1, 1)
    before = made.network.norm.bias.clone()
    made.fix()
    norm, layer = made.network.norm, made.network.stem
    factor = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    folded = (layer.bias.double() - norm.running_mean.double()) * factor + norm.bias.double()
    unit = layer.input_quantizer.scale.double() * made.quantized_weights()["stem"].quantizer.scale
    whole = folded / (unit * factor)
    assert torch.allclose(whole[[0, 1, 3]], whole[[0, 1, 3]].round(), atol=2e-3)
    assert norm.bias[2] == before[2]
    assert ((norm.bias - before).abs() <= 0.51 * unit * factor.abs()).all()


def test_the_bias_of_a_layer_without_batch_norm_is_whole():
    made, _ = student()
    made.fix()
    head = made.network.head
    unit = head.input_quantizer.scale * made.quantized_weights()["head"].quantizer.scale
    assert torch.allclose(head.bias / unit, (head.bias / unit).round(), atol=1e-3)
    assert head.bias.abs().sum() > 0


# ------------------------------------------------------------------------ in place, and beside


def statement(x, y):
    F.relu_(x)
    return x + y


@pytest.mark.parametrize("ranges", ["ema", "learned"])
def test_a_relu_in_place_as_a_statement_is_not_lost(ranges):
    scheme = Scheme(Bits(8, 8), "layer-input", ranges=ranges, joins=8)
    made, _ = student(statement, scheme)
    expected, _ = student(lambda x, y: F.relu(x) + y, scheme)
    for each in (made, expected):
        each.observe(False)
    assert torch.equal(made(images()), expected(images()))
    made(images()).square().sum().backward()
    assert made.network.stem.parametrizations.weight.original.grad.abs().sum() > 0


def test_batch_norms_are_matched_where_element_wise_inputs_are_quantized():
    made, _ = student()
    made.observe(False)
    teacher = Residual(SUMS["operator"]).eval()
    teacher.load_state_dict(made.network.state_dict(), strict=False)
    before = made.network.norm.running_mean.clone()
    match_norms(made, teacher, [images()])
    assert not torch.equal(made.network.norm.running_mean, before)
