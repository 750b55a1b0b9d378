"""Equalized networks are easier to round and give the same outputs."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dreamquant.errors import NetworkError
from dreamquant.quantization.clips import ChannelClip, ClipPerChannel
from dreamquant.quantization.prepare import (
    FoldBatchNorms,
    GiveBiases,
    Preparation,
    prepared,
    restructured,
    structures,
)
from dreamquant.recovery.equalize import AbsorbBias, Equalize, layers_of
from dreamquant.recovery.links import Link, find_links


class Chain(nn.Module):
    """Convolution, depthwise, grouped and pointwise layers and a linear one, channels uneven."""

    def __init__(self, activation=nn.ReLU, norms=True):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1, bias=not norms)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.grouped = nn.Conv2d(8, 6, 1, groups=2)
        self.transposed = nn.ConvTranspose2d(6, 6, 2, 2, groups=3)
        self.head = nn.Linear(6, 5)
        self.norm = nn.BatchNorm2d(8) if norms else nn.Identity()
        self.acts = nn.ModuleList(activation() for _ in range(4))

    def forward(self, x):
        x = self.acts[0](self.norm(self.conv(x)))
        x = self.acts[1](self.depthwise(F.max_pool2d(x, 2)))
        x = self.acts[2](self.grouped(x))
        x = self.acts[3](self.transposed(F.pad(x, (1, 1, 1, 1))))
        return self.head(F.adaptive_avg_pool2d(x, 1).flatten(1))


@torch.no_grad()
def uneven(seed=0, **options):
    torch.manual_seed(seed)
    network = Chain(**options)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.weight.mul_(torch.logspace(-1, 1, len(module.weight)).view(-1, 1, 1, 1))
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.2, 2)
            module.weight.uniform_(0.2, 4)
            module.bias.normal_(std=2)
    return network.eval()


IMAGES = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(1))
RELU6 = {"activation": nn.ReLU6}
PRELU = {"activation": lambda: nn.PReLU()}
LEAKY = {"activation": lambda: nn.LeakyReLU(0.1)}
IN_PLACE = {"activation": lambda: nn.ReLU(inplace=True)}


@pytest.mark.parametrize("options", [{}, IN_PLACE], ids=["plain", "in place"])
def test_links_are_found_by_watching(options):
    network = uneven(**options)
    assert find_links(network, layers_of(network), IMAGES) == [
        Link("conv", "depthwise", "norm", None, True),
        Link("depthwise", "grouped", None, None, True),
        Link("grouped", "transposed", None, None, True),
        Link("transposed", "head", None, None, True),
    ]


@pytest.mark.parametrize("in_place", [False, True])
def test_relu6_and_silu_link_nothing(make_network, in_place):
    for activation in (nn.ReLU6, nn.SiLU, nn.Hardswish, nn.ELU):
        network = uneven(activation=partial(activation, inplace=in_place))
        assert find_links(network, layers_of(network), IMAGES) == []
    # In a residual network what the sum reads is shared with the block.
    residual = make_network(in_place=in_place)
    names = [
        (link.first, link.second) for link in find_links(residual, layers_of(residual), IMAGES)
    ]
    assert names == [("block.conv1", "block.conv2"), ("depthwise", "head")]


@pytest.mark.parametrize("before", [(), (FoldBatchNorms(),)], ids=["norms", "folded"])
@pytest.mark.parametrize("options", [{}, RELU6, PRELU, LEAKY, {"norms": False}])
@pytest.mark.parametrize("seed", range(3))
def test_equalized_networks_compute_the_same(before, options, seed):
    network = uneven(seed, **options)
    done = prepared(network, (*before, ClipPerChannel(), Equalize()), IMAGES)
    wanted = network(IMAGES)
    assert (done(IMAGES) - wanted).abs().max() <= 1e-5 * wanted.abs().max()
    assert not torch.allclose(done.conv.weight, network.conv.weight) or before == ()


@pytest.mark.parametrize("options", [{}, RELU6])
def test_ranges_of_both_layers_are_equal_afterwards(options):
    done = prepared(uneven(**options), (FoldBatchNorms(), ClipPerChannel(), Equalize()), IMAGES)
    given = done.conv.weight.flatten(1).abs().amax(1)
    taken = done.depthwise.weight.flatten(1).abs().amax(1)
    assert torch.allclose(given, taken, rtol=0.01)


@pytest.mark.parametrize("layer", ["conv", "depthwise", "grouped"])
def test_a_channel_that_computes_nothing_is_not_enlarged(layer):
    network = uneven()
    getattr(network, layer).weight.data[0] = 1e-13
    folded = prepared(network, (FoldBatchNorms(),), IMAGES)
    equalized = prepared(network, (FoldBatchNorms(), Equalize()), IMAGES)
    before, after = (getattr(each, layer).bias[0].item() for each in (folded, equalized))
    assert after == pytest.approx(before)


def test_clips_take_their_scales():
    done = prepared(uneven(**RELU6), (ClipPerChannel(), Equalize()), IMAGES)
    assert isinstance(done.acts[0], ChannelClip)
    assert done.acts[0].end.std() > 0.1


def test_a_relu6_that_runs_twice_stays():
    relu = nn.ReLU6()
    network = nn.Sequential(nn.Conv2d(3, 4, 1), relu, nn.Conv2d(4, 4, 1), relu)
    done = prepared(network.eval(), (ClipPerChannel(),), IMAGES)
    assert isinstance(done[1], nn.ReLU6)


def test_clips_are_put_back_when_a_result_is_opened():
    steps = (FoldBatchNorms(), ClipPerChannel(), Equalize())
    network = uneven(**RELU6)
    done = prepared(network, steps, IMAGES)
    opened = restructured(network, structures(steps), IMAGES)
    opened.load_state_dict(done.state_dict())
    assert torch.equal(opened(IMAGES), done(IMAGES))


def test_biases_are_given_again_when_a_result_is_opened():
    steps = (FoldBatchNorms(), GiveBiases(), AbsorbBias())
    layers = (nn.Conv2d(3, 4, 1, bias=False), nn.BatchNorm2d(4), nn.ReLU(inplace=True))
    network = nn.Sequential(*layers, nn.ConvTranspose2d(4, 6, 2, bias=False)).eval()
    nn.init.constant_(network[1].bias, 9.0)
    done = prepared(network, steps, IMAGES)
    assert done[3].bias.abs().min() > 0
    opened = restructured(network, structures(steps), IMAGES)
    opened.load_state_dict(done.state_dict())
    assert torch.equal(opened(IMAGES), done(IMAGES))


class Wrong(Preparation):
    def apply(self, network, example):
        network.head.weight.mul_(1.01)


def test_a_network_that_computes_something_else_is_refused():
    with pytest.raises(NetworkError, match="Wrong changes what the network computes"):
        prepared(uneven(), (Wrong(),), IMAGES)


@torch.no_grad()
def test_absorbed_biases_change_nothing_where_channels_stay_positive():
    network = uneven()
    network.norm.bias.fill_(20.0)
    # No padding: at a border of zeros absorption is not exact.
    network.depthwise.padding = (0, 0)
    done = prepared(network, (FoldBatchNorms(), AbsorbBias()), IMAGES)
    wanted = network(IMAGES)
    assert (done(IMAGES) - wanted).abs().max() <= 1e-4 * wanted.abs().max()
    assert (done.norm.mean < 20).all()
    assert (done.conv.bias < prepared(network, (FoldBatchNorms(),), IMAGES).conv.bias).all()
