"""Integer weights have the values of the student's weights times the batch norm's factor."""

from __future__ import annotations

import importlib

import numpy as np
import pytest
import torch
from torch import nn

from dreamquant.errors import ExportError
from dreamquant.quantization.quantizers import WeightQuantizer
from dreamquant.quantization.student import QuantizedWeight

pytest.importorskip("onnx_ir")
weights = importlib.import_module("dreamquant.export.weights")


def quantized(bits, shape=(6, 4, 3, 3), axis=0):
    latent = nn.Parameter(torch.randn(shape, generator=torch.Generator().manual_seed(bits)) + 0.2)
    quantizer = WeightQuantizer(bits, shape[axis], axis)
    quantizer.fix(latent)
    return QuantizedWeight(latent, quantizer)


def values(codes):
    wide = [-1 if d == codes.axis else 1 for d in range(codes.codes.ndim)]
    return (codes.codes - codes.zero_point.reshape(wide)) * codes.scale.reshape(wide)


FACTOR = np.array([1.5, -0.5, 0.0, 2.0, -1.0, 0.25])


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize(("shape", "axis"), [((6, 4, 3, 3), 0), ((4, 6, 2, 2), 1)])
def test_both_encodings_mean_the_same(bits, shape, axis):
    weight = quantized(bits, shape, axis)
    wide = FACTOR.reshape([-1 if d == axis else 1 for d in range(4)])
    exact = weight.quantizer(weight.latent).detach().double().numpy() * wide
    dtype = weights.least_type(bits, two_bit=True)
    for codes in (weights.boxed(weight, FACTOR, 15, "w"), weights.small(weight, FACTOR, dtype)):
        assert np.allclose(values(codes), exact, rtol=1e-6, atol=1e-9)
        assert (codes.scale > 0).all()
        stored, zero_point = codes.arrays()
        assert (stored.astype(int) == codes.codes).all()
        assert (zero_point.astype(int) == codes.zero_point).all()


@pytest.mark.parametrize("bits", range(2, 9))
def test_a_box_is_filled_as_far_as_sums_of_pairs_allow(bits):
    weight = quantized(bits)
    for highest in (15, 255):
        codes = weights.boxed(weight, None, highest, "w").codes
        plain = weight.quantizer.codes(weight.latent).abs().max()
        assert np.abs(codes).max() <= 127
        assert 2 * highest * np.abs(codes).max() < 2**15 or bits >= 7
        assert bits > 5 or np.abs(codes).max() >= 1.4 * float(plain)


def test_weights_of_earlier_versions_are_refused():
    weight = quantized(8)
    weight.quantizer.zero_point.fill_(-100)
    weight.latent.data.mul_(0).add_(weight.quantizer.scale.view(-1, 1, 1, 1) * 220)
    with pytest.raises(ExportError, match="8-bit weights have a zero-point"):
        weights.boxed(weight, None, 255, "layer")
