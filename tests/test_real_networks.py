"""Real weights and images give the accuracies that their description states."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import grid
from dreamquant.evaluation.data import open_images
from dreamquant.evaluation.metrics import evaluate
from dreamquant.networks.load import load_network

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.mark.real
def test_float_resnet20_on_cifar10_is_as_described(real_data):
    network = load_network(
        f"{BENCHMARKS / 'networks.py'}:cifar10_resnet20",
        weights=real_data / "weights" / "cifar10_resnet20.safetensors",
        shape=(3, 32, 32),
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
    )
    images = open_images(real_data / "cifar10" / "test_lossless.npz", network.input)
    found = evaluate(network.module, images)
    assert found.n == 9874
    assert found.top1 == pytest.approx(91.68, abs=0.05)


@pytest.mark.real
def test_committed_results_are_of_these_weights(real_data):
    network, _ = grid.cifar(real_data, "cifar10_resnet20")
    runs = grid.Grid("cifar10-resnet20", "").runs
    assert {run["protocol"]["teacher_sha256"] for run in runs} == {network.weights_sha256}
    assert all(run["teacher_top1"] == pytest.approx(91.68, abs=0.05) for run in runs)


@pytest.mark.real
def test_float_mobilenet_on_imagenet_is_as_described(real_data):
    network = load_network(
        f"{BENCHMARKS / 'networks.py'}:mobilenet_v1_075",
        weights=real_data / "weights" / "imagenet_mobilenetv1_x075.safetensors",
        shape=(3, 224, 224),
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
    )
    cropped = replace(network.input, resize=256)
    images = open_images(real_data / "imagenet" / "samples1000_256.tar", cropped, limit=200)
    found = evaluate(network.module, images, batch=20)
    low, high = found.ci95
    assert low < 84.7 < high  # of all 1,000
