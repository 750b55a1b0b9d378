from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from dreamquant.evaluation.diversity import Seen, diversity, frechet, look_at


def seen(features, classes, count=3):
    return Seen(torch.tensor(features, dtype=torch.float32), torch.eye(count)[classes])


def test_figures_by_hand():
    found = diversity(seen([[1, 0], [0, 1], [1, 0], [1, 0]], [0, 0, 1, 1]), None)
    assert found.n == 4
    assert found.intra_class == pytest.approx((1.0 + 0.0) / 2)
    assert found.inter_class == pytest.approx(1 - 1 / math.sqrt(2))
    assert found.label_entropy == pytest.approx(math.log(2) / math.log(3))
    assert found.frechet is None


def test_one_class_or_one_image_of_each_leaves_gaps_open():
    assert diversity(seen([[1, 0], [0, 1]], [0, 0]), None).inter_class is None
    assert diversity(seen([[1, 0], [0, 1]], [0, 1]), None).intra_class is None


def test_frechet_of_gaussians_of_one_axis_is_the_closed_form():
    rng = np.random.default_rng(0)
    a, b = rng.normal(1, 2, (400, 1)), rng.normal(4, 5, (300, 1))
    wanted = (a.mean() - b.mean()) ** 2 + (a.std(ddof=1) - b.std(ddof=1)) ** 2
    assert frechet(torch.tensor(a), torch.tensor(b)) == pytest.approx(wanted)


def test_frechet_is_zero_for_equal_sets_symmetric_and_grows_with_distance():
    a, b = torch.randn(50, 4), torch.randn(60, 4) @ torch.randn(4, 4)
    assert frechet(a, a) == pytest.approx(0, abs=1e-9)
    assert frechet(a, b) == pytest.approx(frechet(b, a))
    assert frechet(a, b + 3) > frechet(a, b)


def test_look_at_pools_the_last_relu_map():
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    images = torch.randn(5, 1, 6, 6)
    found = look_at(net, images.split(2))
    torch.testing.assert_close(found.features, net(images).detach())
    assert look_at(nn.Flatten(), [images]) is None
