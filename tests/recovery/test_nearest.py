"""Weights rounded to nearest on searched scales."""

import torch

from dreamquant.recovery.levels import POWER
from dreamquant.recovery.nearest import RoundToNearest


def error(weight, original):
    return (weight - original).abs().pow(POWER).flatten(1).sum(1)


def test_weights_lie_on_their_grid_and_no_tried_range_does_better(make_network, make_bench, do):
    bench = make_bench(make_network(), "w3a3")
    do(RoundToNearest(), bench, None)
    for name, (latent, quantizer) in bench.student.quantized_weights().items():
        original = bench.prepared.get_submodule(name).weight
        assert torch.allclose(quantizer(latent), latent, atol=1e-6)
        flat = original.flatten(1)
        for fraction in (1.0, 0.9, 0.8, 0.7, 0.6, 0.5):
            low, high = fraction * flat.amin(1).clamp(max=0), fraction * flat.amax(1).clamp(min=0)
            scale = ((high - low) / 7)[:, None]
            zero = (-4 - low[:, None] / scale).round().clamp(-4, 3)
            rounded = ((flat / scale + zero).round().clamp(-4, 3) - zero) * scale
            assert (error(latent, original) <= error(rounded, flat) * 1.0001).all(), (
                name,
                fraction,
            )
