"""Recovery without any image."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from dreamquant.quantization.prepare import FoldBatchNorms, prepared
from dreamquant.recovery.biases import CorrectBias, expected_inputs
from dreamquant.recovery.calibrate import Calibrate
from dreamquant.recovery.links import find_links
from dreamquant.recovery.soft import SoftWeight
from dreamquant.recovery.without_images import RangesFromNoise, RoundBySquant


def test_squant_keeps_scales_and_puts_weights_on_them(make_network, make_bench, do):
    bench = make_bench(make_network(), "w4a4")
    before = {
        name: quantizer.parameters_of(latent)[0].clone()
        for name, (latent, quantizer) in bench.student.quantized_weights().items()
    }
    do(RoundBySquant(), bench, None)
    for name, (latent, quantizer) in bench.student.quantized_weights().items():
        assert torch.equal(quantizer.parameters_of(latent)[0], before[name])
        assert torch.allclose(quantizer(latent), latent, atol=1e-6)
        original = bench.prepared.get_submodule(name).weight
        steps = (latent - original) / before[name]
        assert steps.abs().max() <= 1 + 1e-4
        assert steps.flatten(1).sum(1).abs().max() < 0.75


@pytest.mark.parametrize("groups", [1, 3])
def test_squant_of_a_transposed_layer_works_on_its_output_channels(make_bench, do, groups):
    class Up(nn.Module):
        def __init__(self):
            super().__init__()
            self.widen = nn.Conv2d(3, 6, 1)
            self.up = nn.ConvTranspose2d(6, 9, 3, 2, groups=groups)

        def forward(self, x):
            return torch.relu(self.up(torch.relu(self.widen(x)))).mean((2, 3))

    torch.manual_seed(0)
    bench = make_bench(Up().eval(), "w4a4")
    do(RoundBySquant(), bench, None)
    latent, quantizer = bench.student.quantized_weights()["up"]
    gap = (latent - bench.prepared.up.weight) / quantizer.parameters_of(latent)[0]
    assert torch.allclose(quantizer(latent), latent, atol=1e-6)
    assert quantizer.by_channel(gap).sum(1).abs().max() < 0.75
    soft = SoftWeight(bench.student.quantized_weights()["up"], bench.prepared.up.weight)
    soft.settle()
    assert torch.allclose(quantizer(latent), latent, atol=1e-6)


@pytest.mark.parametrize(("bits", "capped"), [("w4a4", True), ("w8a8", False)])
def test_ranges_from_noise_are_deviations_of_the_positive_values(
    make_network, make_bench, do, bits, capped
):
    bench = make_bench(make_network(), bits)
    do(RangesFromNoise(count=32, batch=16), bench, None)
    quantizer = bench.student.relu_outputs[0]
    random = torch.Generator().manual_seed(bench.seed)
    noise = torch.rand(32, 3, 8, 8, generator=random)
    seen = torch.relu(bench.student.network.stem(noise)).detach()
    reach = seen.max() if capped else 25 * seen[seen > 0].std()
    assert torch.isclose(quantizer.scale * quantizer.grid.levels, reach, rtol=1e-4)


@pytest.mark.parametrize("fold", [False, True])
def test_expected_inputs_are_those_of_inputs_as_the_norm_has_them(make_network, fold):
    network = make_network()
    example = torch.randn(2, 3, 8, 8)
    if fold:
        network = prepared(network, (FoldBatchNorms(),), example)
    (link,) = find_links(network, ["block.conv1", "block.conv2"], example)
    draws = torch.randn(200_000, 6)
    bn = make_network().block.bn1
    expected = torch.relu(draws * bn.weight.abs() + bn.bias).mean(0)
    assert torch.allclose(expected_inputs(network, link), expected, atol=0.02)


def test_measured_biases_restore_the_mean_of_every_layer(
    make_network, make_bench, given_images, pool, do
):
    bench = make_bench(make_network(norms=False), "w3a8")
    images = given_images(bench, pool)
    do(Calibrate(count=48, batch=16), bench, images)
    with torch.no_grad():
        before = (bench.student(pool) - bench.prepared(pool)).mean(0)
    do(CorrectBias(count=96, batch=16), bench, images)
    with torch.no_grad():
        after = (bench.student(pool) - bench.prepared(pool)).mean(0)
    assert after.abs().max() < 0.2 * before.abs().max()


def test_analytic_biases_restore_means_of_normal_inputs(make_bench, do):
    """A network whose inputs are exactly as its batch norm says."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 6, 1), nn.Flatten()
    )
    images = torch.randn(64, 3, 8, 8)
    with torch.no_grad():
        seen = network[0](images)
        network[1].running_mean.copy_(seen.mean((0, 2, 3)))
        network[1].running_var.copy_(seen.var((0, 2, 3)))
        network[1].weight.uniform_(0.5, 1.5)
        network[1].bias.normal_()
    bench = make_bench(network.eval().requires_grad_(False), "w2a8")
    # Rounding of the second layer's weights alone, so that nothing else moves means.
    layer = bench.student.network[3]
    inputs = torch.relu(network[1](network[0](images)))

    def surplus():
        with torch.no_grad():
            return (layer.forward(inputs) - network[3](inputs)).mean((0, 2, 3))

    before = surplus()
    do(CorrectBias(), bench, None)
    assert surplus().abs().max() < 0.2 * before.abs().max()


@pytest.mark.parametrize("bits", ["w4a4", "w8a8"])
def test_the_image_keeps_the_range_of_pixels_which_noise_does_not_cover(
    make_network, make_bench, do, bits
):
    bench = make_bench(make_network(), bits, placement="layer-input")
    do(RangesFromNoise(count=32, batch=16), bench, None)
    black, white = (torch.full((1, 3, 8, 8), (pixel - 0.5) / 0.25) for pixel in (0.0, 1.0))
    quantizer = bench.student.network.stem.input_quantizer
    for image in (black, white):
        assert (quantizer(image) - image).abs().max() <= quantizer.scale / 2
    inner = bench.student.network.block.conv1.input_quantizer
    assert inner(black[:, :1]).abs().max() == 0  # what a ReLU gives has no negative values


def test_no_range_goes_beyond_what_an_activation_gives(make_bench, do):
    class Cut(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.layer = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 6, 3)

        def forward(self, x):
            return self.layer(self.stem(x).clamp(0, 0.25)).mean((2, 3))

    torch.manual_seed(0)
    bench = make_bench(Cut().eval().requires_grad_(False), "w8a8", placement="layer-input")
    do(RangesFromNoise(count=32, batch=16), bench, None)
    quantizer = bench.student.network.layer.input_quantizer
    assert torch.isclose(quantizer.scale * quantizer.grid.levels, torch.tensor(0.25))


@pytest.mark.parametrize("value", [0.0, -3.0])
def test_a_padded_image_keeps_the_range_of_pixels_too(make_network, make_bench, do, value):
    class Padded(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = make_network()

        def forward(self, x):
            return self.inner(nn.functional.pad(x, (0, 1, 0, 1), value=value))

    bench = make_bench(Padded().eval().requires_grad_(False), "w8a8", placement="layer-input")
    do(RangesFromNoise(count=32, batch=16), bench, None)
    quantizer = bench.student.network.inner.stem.input_quantizer
    seen = torch.tensor([[[[-2.0, value, 2.0]]]])  # black, padding, white
    assert (quantizer(seen) - seen).abs().max() <= (2 - min(value, -2)) / 255
    inner = bench.student.network.inner.block.conv1.input_quantizer
    assert inner(-seen.abs()).abs().max() == 0


def test_noise_is_as_large_as_pixels_that_are_not_normalised(make_network, make_bench, do):
    network = make_network()
    raw = copy.deepcopy(network)
    raw.stem.weight /= 64  # gives the same for pixels 64 times as large
    ranges = []
    for module, deviation in ((network, 0.24), (raw, 0.24 / 64)):
        bench = make_bench(module, placement="layer-input")
        bench.input = replace(bench.input, std=(deviation,) * 3)
        do(RangesFromNoise(count=16, batch=8), bench, None)
        inner = list(bench.student.activation_quantizers().values())[1:]
        ranges.append([quantizer.range.read() for quantizer in inner])
    for found, raw_found in zip(*ranges, strict=True):
        torch.testing.assert_close(found, raw_found, rtol=1e-4, atol=0)
