"""Sites where a student rounds, and the teacher with rounding at some of these sites."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dreamquant.evaluation.sites import Site, answer_with, find_sites, rounded_weight
from dreamquant.quantization.convert import quantize_network
from dreamquant.quantization.scheme import Bits, Scheme


class Reusing(nn.Module):
    """One ReLU module in two places, and a function without a module."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(2, 3, 3), nn.Conv2d(3, 4, 3)
        self.relu, self.head = nn.ReLU(), nn.Linear(4, 5)

    def forward(self, x):
        x = self.relu(self.first(x))
        x = self.relu(self.second(x))
        return self.head(F.relu(x.mean((2, 3)) - 0.1))


def networks(placement, bits="w3a3", ranges="ema"):
    torch.manual_seed(0)
    teacher = Reusing().eval().requires_grad_(False)
    student, _ = quantize_network(
        teacher, Scheme(Bits.parse(bits), placement, ranges=ranges), images()
    )
    student.observe(True)
    student(images())
    student.fix()
    return teacher, student


def images(count=6):
    return torch.randn(count, 2, 7, 7, generator=torch.Generator().manual_seed(1))


def test_relu_sites_are_named_after_the_layer_before_them():
    assert find_sites(*networks("relu-output"), images()) == [
        Site("weight", "first"),
        Site("relu", "first", 0),
        Site("weight", "second"),
        Site("relu", "second", 1),
        Site("relu", "second", 2),
        Site("weight", "head"),
    ]


def test_input_sites_come_before_their_layers():
    layers = ("first", "second", "head")
    assert find_sites(*networks("layer-input"), images()) == [
        site for layer in layers for site in (Site("input", layer), Site("weight", layer))
    ]


@pytest.mark.parametrize("bits", ["w3a3", "w8a8"])
@pytest.mark.parametrize("ranges", ["ema", "learned"])
@pytest.mark.parametrize("placement", ["relu-output", "layer-input"])
def test_no_site_is_the_teacher_and_all_sites_are_the_student_before_it_learns(
    placement, ranges, bits
):
    teacher, student = networks(placement, bits, ranges)
    batches = images().split(4)
    assert answer_with(teacher, student, [], batches).equal(teacher(images()))
    sites = find_sites(teacher, student, images())
    torch.testing.assert_close(answer_with(teacher, student, sites, batches), student(images()))


@pytest.mark.parametrize("placement", ["relu-output", "layer-input"])
def test_each_site_alone_is_what_it_would_be_by_hand(placement):
    teacher, student = networks(placement)
    weight = rounded_weight(teacher, student, "head")
    found = answer_with(teacher, student, [Site("weight", "head")], [images()])
    teacher.head.weight.copy_(weight)
    torch.testing.assert_close(found, teacher(images()))


def test_the_teacher_is_left_as_it_was():
    teacher, student = networks("layer-input")
    before = {name: tensor.clone() for name, tensor in teacher.state_dict().items()}
    answer_with(teacher, student, find_sites(teacher, student, images()), [images()])
    assert all(tensor.equal(before[name]) for name, tensor in teacher.state_dict().items())
    assert not any(module._forward_pre_hooks for module in teacher.modules())
