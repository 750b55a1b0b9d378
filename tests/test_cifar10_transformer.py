"""The transformer for CIFAR-10 that benchmarks use: its weights are in the repository."""

from __future__ import annotations

import pytest
import torch

import cifar10_transformer
from dreamquant.results.files import read_json, sha256_file


def test_weights_are_those_on_record_and_fit_the_network():
    record = read_json(cifar10_transformer.RECORD)
    assert sha256_file(cifar10_transformer.WEIGHTS) == record["sha256"]
    assert cifar10_transformer.WEIGHTS.stat().st_size < 2_000_000
    network = cifar10_transformer.teacher().module
    assert sum(parameter.numel() for parameter in network.parameters()) == record["parameters"]
    with torch.inference_mode():
        assert network(torch.zeros(2, 3, 32, 32)).shape == (2, 10)


@pytest.mark.real
def test_the_first_images_are_classified_as_well_as_all(real_data):
    images, labels = cifar10_transformer.test_split(real_data)
    network = cifar10_transformer.teacher().module
    reached = cifar10_transformer.accuracy(network, images[:200], labels[:200])
    # Four standard deviations of a proportion among 200 images.
    assert abs(reached - read_json(cifar10_transformer.RECORD)["top1"]) < 12
