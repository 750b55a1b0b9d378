"""Content of the analysis of a finished student, and its limits."""

from __future__ import annotations

import json

import torch
from torch import nn

from dreamquant.evaluation import analysis
from dreamquant.quantization.convert import quantize_network
from dreamquant.quantization.scheme import Bits, Scheme


def networks():
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 8, 3), nn.ReLU(), nn.Flatten()]
    teacher = nn.Sequential(*layers, nn.Linear(128, 5)).eval().requires_grad_(False)
    student, _ = quantize_network(teacher, Scheme(Bits.parse("w2a4")), images())
    student.observe(True)
    student(images())
    student.fix()
    return teacher, student


def images(count=20):
    return torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def test_all_sites_are_described_in_plain_values():
    teacher, student = networks()
    found = analysis.analyse(teacher, student, images().split(8), affordable=1000)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["images"] == 20
    kinds = [site["kind"] for site in found["sites"]]
    assert kinds == ["weight", "relu", "weight", "relu", "weight"]
    for site in found["sites"]:
        assert site["bits"] == (2 if site["kind"] == "weight" else 4)
        assert site["sqnr"] > 0
        assert 0 <= site["alone"]["agreement"] <= 100
    agreed = student(images()).argmax(1).eq(teacher(images()).argmax(1)).double().mean().item()
    assert found["student"]["agreement"] == 100 * agreed


def test_two_bits_of_weights_cost_more_than_four_of_activations():
    sites = analysis.analyse(*networks(), [images()], affordable=1000)["sites"]
    weights = [site["alone"]["sqnr"] for site in sites if site["kind"] == "weight"]
    relus = [site["alone"]["sqnr"] for site in sites if site["kind"] == "relu"]
    assert max(weights) < min(relus)


def test_where_not_all_can_be_afforded_the_noisiest_sites_are_looked_at():
    sites = analysis.analyse(*networks(), [images()], affordable=2 * 20)["sites"]
    looked_at = [site["sqnr"] for site in sites if site["alone"]]
    assert len(looked_at) == 2
    assert max(looked_at) <= min(site["sqnr"] for site in sites if not site["alone"])


def test_images_are_bounded_at_both_ends():
    assert analysis.image_count(10, 10_000) == 256
    assert analysis.image_count(100, 10_000) == 100
    assert analysis.image_count(1000, 10_000) == 16
    assert analysis.affordable_images(600 * 32) == 7680
