"""Analytic moments against Monte Carlo."""

import math

import pytest
import torch

from dreamquant.recovery.moments import clipped_normal

MEANS = torch.tensor([-3.0, -0.5, 0.0, 1.0, 5.5, 9.0])
DEVIATIONS = torch.tensor([0.5, 1.0, 2.0, 0.1, 3.0, 1.0])


@pytest.mark.parametrize(
    ("low", "high"), [(0, math.inf), (0, 6), (-math.inf, math.inf), (-1, 1), (-math.inf, 2)]
)
def test_moments_are_those_of_many_draws(low, high):
    generator = torch.Generator().manual_seed(0)
    draws = torch.randn(400_000, 6, generator=generator, dtype=torch.float64)
    clipped = (draws * DEVIATIONS + MEANS).clamp(low, high)
    mean, variance = clipped_normal(MEANS, DEVIATIONS, low, high)
    assert torch.allclose(mean, clipped.mean(0), atol=0.02)
    assert torch.allclose(variance, clipped.var(0), rtol=0.02, atol=1e-3)


def test_the_mean_of_a_relu_is_that_of_nagel():
    mean, _ = clipped_normal(MEANS, DEVIATIONS, 0, math.inf)
    ratio = (MEANS / DEVIATIONS).double()
    density = torch.exp(-ratio.square() / 2) / math.sqrt(2 * math.pi)
    expected = DEVIATIONS * density + MEANS * torch.special.ndtr(ratio)
    assert torch.allclose(mean, expected)


def test_a_channel_that_never_varies_is_its_clipped_mean():
    mean, variance = clipped_normal(torch.tensor([-1.0, 2.0, 8.0]), torch.zeros(3), 0, 6)
    assert torch.allclose(mean, torch.tensor([0.0, 2.0, 6.0]).double(), atol=1e-9)
    assert torch.allclose(variance, torch.zeros(3).double(), atol=1e-9)


def test_ends_may_differ_between_channels():
    ends = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    together, _ = clipped_normal(MEANS, DEVIATIONS, 0, ends)
    apart = [
        clipped_normal(MEANS[i : i + 1], DEVIATIONS[i : i + 1], 0, float(ends[i]))[0]
        for i in range(6)
    ]
    assert torch.allclose(together, torch.cat(apart))
