"""Batch norms that correct the effect of rounding on their channels."""

import copy

import pytest
import torch
from torch import nn

from dreamquant.quantization.convert import quantize_network
from dreamquant.quantization.norms import match_norms
from dreamquant.quantization.scheme import Bits, Scheme
from dreamquant.quantization.student import Student


@pytest.fixture
def teacher():
    torch.manual_seed(0)
    layers = []
    for inputs, outputs in ((3, 8), (8, 8), (8, 12)):
        convolution = nn.Conv2d(inputs, outputs, 3, padding=1)
        layers += [convolution, nn.BatchNorm2d(outputs), nn.ReLU()]
    network = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 5))
    for norm in norms_of(network):
        # Not those of the images below: synthetic images have others too.
        nn.init.normal_(norm.running_mean, std=0.3)
        nn.init.uniform_(norm.running_var, 0.2, 1.5)
    return network.eval()


@pytest.fixture
def batches():
    generator = torch.Generator().manual_seed(1)
    return list(torch.randn((3, 16, 3, 12, 12), generator=generator))


def norms_of(network):
    return [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]


def student_of(network):
    return Student(copy.deepcopy(network))


@torch.no_grad()
def moved_and_stretched(network):
    """A copy whose channels carry other values, by a gain and a shift of their own."""
    student = student_of(network)
    for module in student.network.modules():
        if isinstance(module, nn.Conv2d):
            gain = torch.empty(len(module.bias)).uniform_(0.5, 2)
            module.weight.mul_(gain.view(-1, 1, 1, 1))
            module.bias.mul_(gain).add_(torch.randn(len(gain)))
    return student


def test_what_a_gain_and_a_shift_did_to_every_channel_is_undone(teacher, batches):
    student = moved_and_stretched(teacher)
    images = torch.randn(4, 3, 12, 12)  # others than those it is matched on
    wanted = teacher(images)
    assert not torch.allclose(student(images), wanted, atol=0.1)
    # One batch is enough: each norm sees what those before it have mended already.
    match_norms(student, teacher, batches[:1])
    torch.testing.assert_close(student(images), wanted, rtol=1e-3, atol=1e-3)


def test_an_exact_copy_keeps_its_statistics(teacher, batches):
    student = student_of(teacher)
    match_norms(student, teacher, batches)
    for norm, original in zip(norms_of(student.network), norms_of(teacher), strict=True):
        torch.testing.assert_close(norm.running_mean, original.running_mean)
        torch.testing.assert_close(norm.running_var, original.running_var)


def test_channels_leave_norms_with_the_teachers_mean_and_deviation_over_all_batches(
    teacher, batches
):
    student, _ = quantize_network(teacher, Scheme(Bits(3, 3)), batches[0])
    student.observe(True)
    for images in batches:
        student(images)
    student.observe(False)
    before = first_norm_gap(student, teacher, batches)
    match_norms(student, teacher, batches)
    # Before the first norm nothing was mended, so all batches met the same channels there.
    assert first_norm_gap(student, teacher, batches) < 1e-5 < 0.01 < before


@torch.no_grad()
def first_norm_gap(student, teacher, batches):
    images = torch.cat(batches)

    def leaving(network, run):
        found = []
        handle = norms_of(network)[0].register_forward_hook(lambda *seen: found.append(seen[2]))
        run(images)
        handle.remove()
        return torch.stack([found[0].mean((0, 2, 3)), found[0].std((0, 2, 3), correction=0)])

    gaps = leaving(student.network, student) - leaving(teacher, teacher)
    return gaps.abs().max().item()


def test_a_channel_that_lies_still_is_not_blown_up(teacher, batches):
    student = student_of(teacher)
    first = student.network[0]
    with torch.no_grad():
        first.weight[0] = 0
    match_norms(student, teacher, batches)
    var, original = norms_of(student.network)[0].running_var, norms_of(teacher)[0].running_var
    assert var[0] == pytest.approx(original[0].item() / 16, rel=1e-3)
    assert all(torch.isfinite(value).all() for value in student.state_dict().values())


def test_the_teacher_and_weights_stay_as_they_were(teacher, batches):
    student = moved_and_stretched(teacher)
    states = [copy.deepcopy(network.state_dict()) for network in (teacher, student)]
    match_norms(student, teacher, batches)
    for name, value in teacher.state_dict().items():
        assert value.equal(states[0][name])
    changed = {
        name for name, value in student.state_dict().items() if not value.equal(states[1][name])
    }
    statistics = ("running_mean", "running_var")
    assert changed == {f"network.{i}.{name}" for i in (1, 4, 7) for name in statistics}
    assert not any(module._forward_pre_hooks for module in student.modules())


def test_a_norm_that_never_runs_is_left_alone(teacher, batches):
    teacher.add_module("idle", nn.BatchNorm2d(4))

    class Without(nn.Module):
        def __init__(self, network):
            super().__init__()
            self.network = network

        def forward(self, x):
            return self.network[:-1](x)

    whole = Without(teacher).eval()
    student = student_of(whole)
    match_norms(student, whole, batches)
    assert student.network.network.idle.running_mean.equal(torch.zeros(4))
