"""What robustness and attention terms ask of the teacher leaves it exactly as it was."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from dreamquant.errors import NetworkError
from dreamquant.training.step import Batch, Chance, Step, Teacher

TAPS = {"statistics", "activation"}


def network():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Conv2d(4, 6, 3, stride=2, padding=1),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 3),
    )
    net(torch.randn(64, 1, 8, 8))
    return net.eval().requires_grad_(False)


def step_on(net, images, seed=1):
    teacher = Teacher(net, torch.zeros(2, 1, 8, 8), TAPS)
    batch = Batch(images, torch.zeros(len(images), dtype=torch.int64), torch.zeros(len(images), 2))
    chance = Chance.seeded(seed, torch.device("cpu"))
    return Step(batch, teacher, net, chance, student_learns=True)


@pytest.mark.parametrize(
    "ask",
    [
        lambda step: step.teacher.in_training_mode,
        lambda step: step.teacher.under_weight_noise(0.1),
        lambda step: step.teacher.on(step.images.flip(3)),
        lambda step: step.on_noise(lambda noise: noise.teacher.logits),
    ],
    ids=["training mode", "weight noise", "other images", "noise images"],
)
def test_teacher_is_untouched(ask):
    net = network()
    before = copy.deepcopy(net.state_dict())
    step = step_on(net, torch.randn(5, 1, 8, 8))
    clean = step.teacher.logits.clone()
    ask(step)
    after = net.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert not any(module.training for module in net.modules())
    assert not any(module._forward_pre_hooks for module in net.modules())
    assert torch.equal(step_on(net, step.images).teacher.logits, clean)


def test_training_mode_is_what_a_network_in_training_computes():
    net, images = network(), torch.randn(5, 1, 8, 8)
    wanted = copy.deepcopy(net)
    wanted.train()
    torch.testing.assert_close(step_on(net, images).teacher.in_training_mode.logits, wanted(images))


def test_activation_is_the_last_relu_map_and_features_its_mean():
    net, images = network(), torch.randn(5, 1, 8, 8)
    teacher = step_on(net, images).teacher
    assert torch.equal(teacher.activation, net[:6](images))
    assert torch.equal(teacher.features, net[:6](images).mean((2, 3)))


def test_weight_noise_is_as_large_as_asked_and_new_each_time():
    net, images = network(), torch.randn(5, 1, 8, 8)
    step = step_on(net, images)
    assert torch.equal(step.teacher.under_weight_noise(0.0).logits, step.teacher.logits)
    first, second = (step.teacher.under_weight_noise(0.05).logits for _ in range(2))
    assert not torch.equal(first, second)
    little = (step.teacher.under_weight_noise(0.001).logits - step.teacher.logits).abs().mean()
    much = (step.teacher.under_weight_noise(0.5).logits - step.teacher.logits).abs().mean()
    assert much > 20 * little


def test_perturbed_answers_pass_gradients_to_the_images():
    images = torch.randn(4, 1, 8, 8, requires_grad=True)
    teacher = step_on(network(), images).teacher
    answers = (teacher.on(images * 2), teacher.under_weight_noise(0.1), teacher.in_training_mode)
    for answer in answers:
        (gradient,) = torch.autograd.grad(answer.features.sum(), images, retain_graph=True)
        assert gradient.abs().sum() > 0


def test_noise_reference_is_measured_once_and_the_same_in_every_run():
    calls = []

    def measure(step):
        calls.append(step.images.clone())
        return step.teacher.logits

    step = step_on(network(), torch.randn(5, 1, 8, 8))
    assert step.on_noise(measure) is step.on_noise(measure)
    again = step_on(network(), torch.randn(5, 1, 8, 8), seed=2).on_noise(measure)
    assert len(calls) == 2
    assert torch.equal(calls[0], calls[1])
    assert torch.equal(step.on_noise(measure), again)
    assert abs(calls[0].mean()) < 0.2
    assert not again.requires_grad


def test_a_network_without_a_relu_map_is_refused_by_terms_that_read_it():
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 3), nn.ReLU()).eval()
    with pytest.raises(NetworkError, match="no ReLU of the network yields one"):
        Teacher(net, torch.zeros(2, 1, 8, 8), {"activation"})
