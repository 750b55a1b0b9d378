"""Real weights and images give the accuracies that their description states."""

from __future__ import annotations

import pytest

import grid
from dreamquant.evaluation.data import open_images
from dreamquant.evaluation.metrics import evaluate


@pytest.mark.real
def test_float_resnet20_on_cifar10_is_as_described(real_data):
    network, source = grid.cifar(real_data, "cifar10_resnet20")
    images = open_images(source, network.input, limit=1000)
    low, high = evaluate(network.module, images).ci95
    assert low < 91.68 < high  # of all 9,874


@pytest.mark.real
def test_float_mobilenet_on_imagenet_is_as_described(real_data):
    network, source = grid.imagenet(real_data)
    images = open_images(source, network.input, limit=100)
    found = evaluate(network.module, images, batch=20)
    low, high = found.ci95
    assert low < 84.7 < high  # of all 1,000
