"""Strided convolutions that read their input at a random offset."""

import pytest
import torch
from torch import nn

from dreamquant.networks.swing import moved, swinging


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("down", [-1, 0, 1])
@pytest.mark.parametrize("right", [-1, 0, 1])
def test_an_image_moves_and_its_border_is_reflected(down, right):
    x = torch.randn(2, 3, 5, 6, generator=generator())
    y = moved(x, down, right)
    for row in range(5):
        for column in range(6):
            from_row, from_column = row - down, column - right
            from_row = 1 if from_row < 0 else 3 if from_row > 4 else from_row
            from_column = 1 if from_column < 0 else 4 if from_column > 5 else from_column
            assert y[:, :, row, column].equal(x[:, :, from_row, from_column])


def test_only_strided_convolutions_swing_and_sizes_stay():
    network = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 5, 3, 2), nn.ReLU()).eval()
    x = torch.randn(1, 3, 9, 9, generator=generator())
    plain, inner = network(x), network[0](x)
    possible = [network[1](moved(inner, d, r)).relu() for d in (-1, 0, 1) for r in (-1, 0, 1)]
    seen = set()
    with swinging(network, generator(1)):
        for _ in range(60):
            y = network(x)
            seen.update(i for i, each in enumerate(possible) if each.equal(y))
    assert seen == set(range(9))
    assert possible[4].equal(plain)
    assert network(x).equal(plain)


def test_a_map_of_one_pixel_stays_where_it_is():
    layer = nn.Conv2d(2, 2, 1, stride=2)
    x = torch.randn(1, 2, 1, 1)
    with swinging(layer, generator()):
        assert layer(x).equal(layer.forward(x))
