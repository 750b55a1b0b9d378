"""Activation ranges from batch norms alone."""

import pytest
import torch
from torch import nn

from dreamquant.quantization.clips import ClipPerChannel
from dreamquant.quantization.prepare import FoldBatchNorms, prepared
from dreamquant.recovery.norm_ranges import RangesFromBatchNorm

EXAMPLE = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def high_of(quantizer):
    return (quantizer.grid.qmax - quantizer.zero_point) * quantizer.scale


def network_of(activation):
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), activation, nn.Conv2d(6, 4, 3)
    )
    nn.init.uniform_(network[1].weight, 0.5, 1.2)
    nn.init.normal_(network[1].bias)
    return nn.Sequential(network, nn.ReLU(), nn.Flatten()).eval().requires_grad_(False)


@pytest.mark.parametrize("steps", [(), (FoldBatchNorms(),)], ids=["norms", "folded"])
def test_a_range_reaches_so_many_deviations(make_bench, do, steps):
    network = network_of(nn.ReLU())
    norm = network[0][1]
    bench = make_bench(prepared(network, steps, EXAMPLE), "w8a8")
    do(RangesFromBatchNorm(), bench, None)
    expected = (norm.bias + 6 * norm.weight.abs()).max()
    assert torch.isclose(high_of(bench.student.relu_outputs[0]), expected, rtol=1e-3)


@pytest.mark.parametrize("steps", [(), (ClipPerChannel(),)], ids=["relu6", "clips"])
def test_a_range_ends_where_the_activation_cuts(make_bench, do, steps):
    network = network_of(nn.ReLU6())
    bench = make_bench(prepared(network, steps, EXAMPLE), "w8a8")
    do(RangesFromBatchNorm(deviations=50), bench, None)
    assert torch.isclose(high_of(bench.student.relu_outputs[0]), torch.tensor(6.0), rtol=1e-3)


@pytest.mark.parametrize("activation", [nn.ReLU, nn.ReLU6, nn.SiLU])
def test_an_activation_in_place_has_the_range_of_the_same_that_is_not(make_bench, do, activation):
    ends = []
    for in_place in (False, True):
        bench = make_bench(network_of(activation(inplace=in_place)), "w8a8")
        do(RangesFromBatchNorm(), bench, None)
        ends.append(high_of(bench.student.relu_outputs[0]))
    assert ends[0] == ends[1]


def test_with_few_bits_draws_are_rounded_well(make_bench, do):
    network = network_of(nn.ReLU())
    norm = network[0][1]
    bench = make_bench(network, "w4a4")
    do(RangesFromBatchNorm(), bench, None)
    quantizer = bench.student.relu_outputs[0]
    draws = torch.relu(torch.randn(20_000, 6) * norm.weight + norm.bias)

    def error(scale):
        steps = (draws / scale).round().clamp(0, 15)
        return (steps * scale - draws).square().mean()

    tried = torch.stack([error(quantizer.scale * f) for f in (0.7, 0.85, 1.2, 1.4)])
    assert (error(quantizer.scale) < tried * 1.02).all()


def test_what_no_batch_norm_tells_of_has_the_range_of_noise(make_network, make_bench, do):
    bench = make_bench(make_network(), "w8a8")
    do(RangesFromBatchNorm(), bench, None)
    # What the stem gives has no batch norm, hence the sum is known of neither: ranges of noise.
    assert all(q.scale > 0 for q in bench.student.activation_quantizers().values())
    norm = bench.prepared.block.bn1
    expected = (norm.bias + 6 * norm.weight.abs()).max()
    assert torch.isclose(high_of(bench.student.relu_outputs[1]), expected, rtol=1e-3)


def test_the_image_has_the_range_of_its_pixels(make_network, make_bench, do):
    bench = make_bench(make_network(), "w8a8", placement="layer-input")
    do(RangesFromBatchNorm(), bench, None)
    quantizer = bench.student.input_quantizers()["stem"]
    mean, std = bench.input.mean[0], bench.input.std[0]
    assert torch.isclose(high_of(quantizer), torch.tensor((1 - mean) / std), rtol=0.02)


class TwoNorms(nn.Module):
    def __init__(self):
        super().__init__()
        self.left, self.right = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1)
        self.norms = nn.ModuleList([nn.BatchNorm2d(4), nn.BatchNorm2d(4)])
        self.head = nn.Linear(4, 5)

    def forward(self, x):
        total = self.norms[0](self.left(x)) + self.norms[1](self.right(x))
        return self.head(torch.relu(total).mean((2, 3)))


def test_sums_add_means_and_variances(make_bench, do):
    torch.manual_seed(0)
    network = TwoNorms().eval().requires_grad_(False)
    for norm in network.norms:
        norm.weight.uniform_(0.5, 1.2)
        norm.bias.normal_()
    bench = make_bench(network, "w8a8")
    do(RangesFromBatchNorm(deviations=4), bench, None)
    left, right = network.norms
    deviation = (left.weight.square() + right.weight.square()).sqrt()
    expected = (left.bias + right.bias + 4 * deviation).max()
    assert torch.isclose(high_of(bench.student.relu_outputs[0]), expected, rtol=1e-3)
