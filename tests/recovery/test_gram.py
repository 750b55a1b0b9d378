"""Moments of a layer's input."""

import pytest
import torch
from torch import nn

from dreamquant.recovery.gram import Sums, moments_of


def dense_input_rows(x):
    """Every window of a 3x3 convolution with padding 1, by brute force: (positions, C, 9)."""
    padded = nn.functional.pad(x, (1, 1, 1, 1))
    rows = [
        padded[b, :, i : i + 3, j : j + 3].flatten(1)
        for b in range(len(x))
        for i in range(x.shape[2])
        for j in range(x.shape[3])
    ]
    return torch.stack(rows).double()  # (positions, C, 9)


def test_moments_equal_those_of_every_window():
    torch.manual_seed(0)
    layer = nn.Conv2d(2, 3, 3, padding=1)
    x, wanted = torch.randn(3, 2, 5, 4), torch.randn(3, 3, 5, 4)
    found = moments_of(layer, [(x[:2], wanted[:2]), (x[2:], wanted[2:])])
    rows = dense_input_rows(x).transpose(1, 2).flatten(1)
    outputs = wanted.movedim(1, -1).reshape(-1, 3).double()
    assert torch.allclose(found.gram[0], rows.T @ rows / len(rows), atol=1e-6)
    assert torch.allclose(found.cross[0], rows.T @ outputs / len(rows), atol=1e-6)
    centred = found.centred()
    assert torch.allclose(centred.gram[0], torch.cov(rows.T, correction=0), atol=1e-6)


def test_depthwise_grams_are_the_blocks_of_the_dense_one():
    torch.manual_seed(0)
    x = torch.randn(2, 3, 6, 6)
    depthwise = nn.Conv2d(3, 3, 3, padding=1, groups=3)
    found = moments_of(depthwise, [(x, torch.randn(2, 3, 6, 6))])
    rows = dense_input_rows(x)
    dense = torch.einsum("nci,ndj->cidj", rows, rows) / len(rows)
    assert torch.allclose(found.gram, torch.stack([dense[c, :, c] for c in range(3)]), atol=1e-6)


def test_a_sample_of_positions_estimates_the_same_moments():
    torch.manual_seed(0)
    layer = nn.Conv2d(2, 3, 3, padding=1)
    x = torch.randn(16, 2, 16, 16)
    wanted = layer(x).detach()
    sampled = Sums(layer, 2048, torch.Generator().manual_seed(1))
    sampled.add(x, wanted)
    assert sampled.count == 2048
    exact = moments_of(layer, [(x, wanted)])
    assert torch.allclose(sampled.moments().gram, exact.gram, atol=0.1)


def test_nothing_added_is_refused():
    with pytest.raises(ValueError, match="no batch"):
        Sums(nn.Linear(2, 2), None, torch.Generator()).moments()


def test_the_bias_belongs_to_the_weights():
    torch.manual_seed(0)
    layer = nn.Linear(4, 3)
    x = torch.randn(50, 4) + 1
    found = moments_of(layer, [(x, layer(x).detach())])
    assert torch.allclose(found.bias(layer.weight.unsqueeze(0)).float(), layer.bias, atol=1e-5)


def test_inputs_far_from_zero_that_hardly_vary_keep_their_covariance():
    random = torch.Generator().manual_seed(0)
    layer = nn.Conv2d(2, 2, 1, groups=2)
    x = 5.25 + 1e-3 * torch.randn(4, 2, 32, 32, generator=random)
    moments = moments_of(layer, [(half, half) for half in x.split(2)]).centred()
    variance = x.double().var((0, 2, 3), correction=0)
    torch.testing.assert_close(moments.gram.flatten(), variance, rtol=1e-3, atol=0)
    torch.testing.assert_close(moments.cross.flatten(), variance, rtol=1e-3, atol=0)
