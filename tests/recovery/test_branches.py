"""The operations after each layer."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dreamquant.recovery.branches import Branch, find_branches

IMAGES = torch.zeros(2, 3, 8, 8)


def layers_of(network):
    return [n for n, m in network.named_modules() if isinstance(m, (nn.Conv2d, nn.Linear))]


@pytest.mark.parametrize("in_place", [False, True])
def test_the_last_layer_of_a_residual_block_enters_the_sum(make_network, in_place):
    network = make_network(in_place=in_place)
    found = find_branches(network, layers_of(network), IMAGES)
    assert found == {
        "stem": Branch(None, False),
        "block.conv1": Branch("block.bn1", False),
        "block.conv2": Branch("block.bn2", True),
        "depthwise": Branch(None, False),
        "head": Branch(None, False),
    }


class Downsampled(nn.Module):
    def __init__(self):
        super().__init__()
        self.main, self.shortcut = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1)

    def forward(self, x):
        return self.main(x) + self.shortcut(x)


def test_of_two_layers_that_enter_a_sum_the_later_one_makes_up_for_both():
    network = Downsampled()
    found = find_branches(network, ["main", "shortcut"], IMAGES)
    assert [found[name].summed for name in ("main", "shortcut")] == [False, True]


class ReadTwice(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

    def forward(self, x):
        y = self.conv(x)
        return self.norm(y) + F.relu(y)


def test_a_norm_that_does_not_read_a_layer_alone_is_not_the_layers():
    assert find_branches(ReadTwice().eval(), ["conv"], IMAGES)["conv"] == Branch(None, False)


class Repeated(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)

    def forward(self, x):
        return x + self.conv(F.relu(self.conv(x)))


def test_a_layer_that_runs_twice_waits_for_no_sum():
    assert find_branches(Repeated(), ["conv"], IMAGES)["conv"] == Branch(None, False)


@pytest.mark.parametrize("in_place", [False, True])
def test_a_norm_behind_an_activation_is_not_the_layers(in_place):
    network = nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU(inplace=in_place), nn.BatchNorm2d(3))
    assert find_branches(network.eval(), ["0"], IMAGES)["0"] == Branch(None, False)
