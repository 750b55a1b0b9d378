"""Ranges for each image and channel, computed while the network runs, and their cost."""

from __future__ import annotations

import pytest
import torch

from dreamquant import open_result, quantize
from dreamquant.errors import ExportError, SchemeError
from dreamquant.export.job import export_result
from dreamquant.networks import demo
from dreamquant.quantization.affine import unsigned_grid
from dreamquant.quantization.convert import quantize_network
from dreamquant.quantization.dynamic import DynamicQuantizer
from dreamquant.quantization.scheme import Bits, Scheme
from tiny_runs import tiny_network

DYNAMIC = Scheme(Bits(3, 3), granularity="image-channel")


def quantizer(bits=3):
    return DynamicQuantizer(bits, clipped_gradient=True, momentum=0.9)


def test_each_channel_of_each_image_has_its_own_grid() -> None:
    x = torch.randn(2, 3, 4, 5).double()
    made = quantizer()
    found, codes = made(x), made.codes(x)
    levels = unsigned_grid(3).levels
    for image in range(2):
        for channel in range(3):
            values = x[image, channel]
            low, high = min(values.min().item(), 0.0), max(values.max().item(), 0.0)
            scale = (high - low) / levels
            zero = round(-low / scale)
            code = (values / scale).round() + zero
            wanted = code.clamp(0, levels)
            torch.testing.assert_close(codes[image, channel].double(), wanted)
            torch.testing.assert_close(found[image, channel], (wanted - zero) * scale)
    assert (made.scales, made.values) == (3, 60)


def test_an_image_without_positions_is_one_channel() -> None:
    made = quantizer()
    made(torch.randn(4, 7))
    assert (made.scales, made.values) == (1, 7)


def test_other_images_of_a_batch_do_not_matter() -> None:
    x, made = torch.randn(3, 2, 4, 4), quantizer()
    torch.testing.assert_close(made(x)[:1], made(x[:1]))


def test_gradients_pass_straight_through() -> None:
    x = torch.randn(2, 3, 4, 4, requires_grad=True)
    quantizer()(x).sum().backward()
    torch.testing.assert_close(x.grad, torch.ones_like(x))


def test_the_cost_is_counted() -> None:
    network = tiny_network()
    example = torch.zeros(2, 1, 8, 8)
    _, coverage = quantize_network(network, DYNAMIC, example)
    seen = []
    for module in network.modules():
        if isinstance(module, torch.nn.ReLU):
            module.register_forward_hook(lambda _, __, output: seen.append(output[0]))
    network(example)
    assert coverage.dynamic_scales == sum(each.shape[0] if each.dim() > 1 else 1 for each in seen)
    assert coverage.dynamic_values == sum(each.numel() for each in seen)
    _, static = quantize_network(tiny_network(), Scheme(Bits(3, 3)), example)
    assert static.dynamic_scales == static.dynamic_values == 0
    assert static.scale_bytes - coverage.scale_bytes == 5 * len(seen)


@pytest.mark.parametrize("placement", ["layer-input", "operands"])
def test_integer_placements_are_refused(placement) -> None:
    with pytest.raises(SchemeError, match="no input of an integer kernel"):
        Scheme(Bits(3, 3), placement=placement, granularity="image-channel")


def test_a_result_names_the_cost_opens_alike_and_cannot_be_exported(tmp_path) -> None:
    options = {"iterations": 4, "device": "cpu", "quiet": True, "precision": "32"}
    out = tmp_path / "out"
    result = quantize(demo.teacher(), "w3a3", "granq", out=out, **options)
    coverage = result.manifest["coverage"]
    told = result.manifest["protocol"]["activations"]
    assert coverage["dynamic_scales"] > 0
    assert f"{coverage['dynamic_scales']:,} scales found anew for each image" in told
    images = torch.randn(3, 1, 8, 8)
    with torch.no_grad():
        opened = open_result(out, network=demo.teacher().module).model(images)
        torch.testing.assert_close(opened, result.model(images))
    pytest.importorskip("onnxscript")
    with pytest.raises(ExportError, match="computed for each image and channel"):
        export_result(out, ("int8box",))
