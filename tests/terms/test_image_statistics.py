"""ZeroQ's terms against loops over images, layers and channels."""

import math

import pytest
import torch
from torch import nn

from dreamquant.terms.image_statistics import ImageStatistics, InputStatistics
from stored_runs import images_of, small_network, step_on


def moments(plane):
    """Mean and biased variance of one channel of one image, in plain loops."""
    values = [v for row in plane.tolist() for v in row]
    mean = sum(values) / len(values)
    return mean, sum((v - mean) ** 2 for v in values) / len(values)


def test_image_statistics_are_the_equation():
    network, images = small_network(), images_of(3)
    entering = {}
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.register_forward_pre_hook(lambda m, i: entering.__setitem__(m, i[0]))
    network(images)
    wanted = 0.0
    for norm, x in entering.items():
        for image in x:
            for c, plane in enumerate(image):
                mean, var = moments(plane)
                wanted += (mean - norm.running_mean[c].item()) ** 2 / 3
                gap = math.sqrt(var + 1e-6) - math.sqrt(norm.running_var[c].item() + 1e-6)
                wanted += gap**2 / 3
    term = ImageStatistics()
    assert term(step_on(term, images)).item() == pytest.approx(wanted, rel=1e-4)


def test_input_statistics_are_the_equation():
    images = images_of(4) * 2 + 1
    wanted = 0.0
    for image in images:
        for plane in image:
            mean, var = moments(plane)
            wanted += (mean**2 + (math.sqrt(var + 1e-6) - 1) ** 2) / 4
    term = InputStatistics()
    assert term(step_on(term, images)).item() == pytest.approx(wanted, rel=1e-4)


@pytest.mark.parametrize("term", [ImageStatistics(), InputStatistics()])
def test_a_batch_counts_no_more_than_its_images_do_apart(term):
    images = images_of(4)
    whole = term(step_on(term, images)).item()
    apart = [term(step_on(term, image[None])).item() for image in images]
    assert whole == pytest.approx(sum(apart) / 4, rel=1e-5)


@pytest.mark.parametrize("term", [ImageStatistics(), InputStatistics()])
def test_blank_images_have_a_finite_gradient(term):
    images = torch.zeros(2, 3, 8, 8, requires_grad=True)
    (gradient,) = torch.autograd.grad(term(step_on(term, images)), [images])
    assert gradient.isfinite().all()
