"""SynQ's terms and filter, against plain computations."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from dreamquant.methods import find_method
from dreamquant.methods.method import Preset
from dreamquant.recovery.low_pass import LowPass
from dreamquant.terms.activation_maps import CamAlignment
from dreamquant.terms.gated import GatedCrossEntropy
from given_steps import given_step
from stored_runs import SPEC, advance, images_of, run_of, small_network, step_on


@pytest.mark.parametrize("threshold", [0.0, 0.6, 1.0])
def test_labels_count_where_the_teacher_is_sure_of_them(threshold):
    random = np.random.default_rng(0)
    z_p, z_q = 2 * random.normal(size=(2, 9, 4))
    labels = [0, 1, 2, 3, 0, 1, 2, 3, 0]
    wanted, counted = 0.0, 0
    for p, q, y in zip(z_p, z_q, labels, strict=True):
        if 1 - math.exp(p[y]) / sum(np.exp(p)) <= threshold:
            wanted -= (q[y] - math.log(sum(np.exp(q)))) / 9
            counted += 1
    assert (counted == 0, counted == 9) == (threshold == 0.0, threshold == 1.0)
    term = GatedCrossEntropy(threshold)
    step = given_step(
        term,
        teacher=torch.from_numpy(z_p),
        student=torch.from_numpy(z_q),
        targets=torch.tensor(labels),
    )
    assert term(step).item() == pytest.approx(wanted)


def cam(network, images, labels):
    """By the head's own weights: the mean over positions of dz_y/dA_k is w_yk / positions."""
    seen = []
    handle = network.blocks.register_forward_hook(lambda _, i, y: seen.append(y))
    network(images)
    handle.remove()
    (features,) = seen
    weights = network.head.weight[labels] / features[0, 0].numel()
    return F.relu((weights[:, :, None, None] * features).sum(1))


@pytest.mark.parametrize("learns", [False, True])
def test_maps_of_activation_are_grad_cam(learns):
    images, labels = images_of(4), torch.tensor([0, 1, 4, 2])
    teacher, student = small_network(0), small_network(1).requires_grad_(True)
    term = CamAlignment()
    images.requires_grad_(learns)
    step = step_on(term, images, student=student, teacher=teacher, targets=labels)
    gap = cam(student, images, labels) - cam(teacher, images, labels)
    loss = term(step)
    assert loss.item() == pytest.approx(gap.square().sum((1, 2)).mean().item(), rel=1e-4)
    (gradient,) = torch.autograd.grad(loss, [student.blocks[0].conv1.weight])
    assert gradient.abs().sum() > 0


def test_the_filter_multiplies_frequencies():
    images = images_of(2)
    height = width = 8
    spectrum = np.fft.fftshift(np.fft.fft2(images.numpy()), axes=(2, 3))
    for row in range(height):
        for column in range(width):
            distance = (row - 4) ** 2 + (column - 4) ** 2
            spectrum[:, :, row, column] *= math.exp(-distance / (2 * (0.3 * 8) ** 2))
    wanted = np.fft.ifft2(np.fft.ifftshift(spectrum, axes=(2, 3))).real
    assert np.allclose(LowPass(0.3)(images).numpy(), wanted, atol=1e-5)


def test_a_constant_image_passes_whole():
    flat = torch.full((1, 3, 5, 7), 2.5)
    assert torch.allclose(LowPass()(flat), flat, atol=1e-5)


@pytest.mark.parametrize("name", ["synq", "plf+synq"])
def test_the_student_learns_from_filtered_images(name):
    method = find_method(name).resolved("quick", SPEC.shape)
    method = method.with_numbers(
        Preset(
            images={"size": 8, "batch": 8, "steps": 2},
            recovery={
                "Calibrate": {"count": 8, "batch": 4},
                "Train": {"iterations": 3, "batch": 4},
            },
        )
    )
    run, images = run_of(method)
    seen = []
    run.bench.student.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    losses = advance(run)
    assert {"student/GatedCrossEntropy", "student/CamAlignment"} <= losses[-1].keys()
    smooth = LowPass()(images.images)
    assert any(given[0].equal(each) for given in seen[-2:] for each in smooth)
