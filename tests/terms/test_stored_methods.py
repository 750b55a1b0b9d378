"""Terms of methods that keep their images, against plain loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from dreamquant.networks.module_outputs import NormOutputs
from dreamquant.networks.relu_maps import LastMap
from dreamquant.terms.channel_attention import ChannelAttention
from dreamquant.terms.class_distance import MarginalDistance
from dreamquant.terms.feature_matching import FeatureMatching
from dreamquant.terms.focal import FocalCrossEntropy
from dreamquant.terms.image_distillation import ImageDistillation
from dreamquant.terms.logits import LogitMatching
from dreamquant.terms.pseudo_labels import PseudoLabels
from dreamquant.terms.slack import SlackStatistics
from dreamquant.terms.soft_inception import SoftInception
from dreamquant.training.rng import Rng
from given_steps import given_step
from stored_runs import images_of, small_network, step_on


def logits(batch=5, classes=4, scale=2.0, seed=0):
    return scale * np.random.default_rng(seed).normal(size=(2, batch, classes))


def softmax(row):
    weights = [math.exp(z) for z in row]
    return [weight / sum(weights) for weight in weights]


def value(term, z_p, z_q=None, targets=None, **attributes):
    student = None if z_q is None else torch.as_tensor(z_q)
    if targets is not None:
        attributes["targets"] = torch.as_tensor(targets)
    return term(given_step(term, teacher=torch.as_tensor(z_p), student=student, **attributes))


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0])
def test_focal_cross_entropy_is_the_equation(power):
    z_p, _ = logits()
    labels = [0, 3, 1, 1, 2]
    p = [softmax(row)[y] for row, y in zip(z_p, labels, strict=True)]
    wanted = sum((1 - own) ** power * -math.log(own) for own in p) / len(p)
    assert value(FocalCrossEntropy(power), z_p, targets=labels).item() == pytest.approx(wanted)


def test_focal_cross_entropy_has_a_finite_gradient_where_the_teacher_is_certain():
    z_p = torch.tensor([[80.0, 0.0], [5.0, 0.0]], requires_grad=True)
    term = FocalCrossEntropy(power=0.5)
    (gradient,) = torch.autograd.grad(value(term, z_p, targets=[0, 0]), [z_p])
    assert gradient.isfinite().all()


@pytest.mark.parametrize("temperature", [1.0, 20.0])
def test_image_distillation_is_the_divergence_of_a_whole_image(temperature):
    z_p, z_q = logits()
    wanted = 0.0
    for one, other in zip(z_p, z_q, strict=True):
        p, q = softmax(one / temperature), softmax(other / temperature)
        wanted += temperature**2 * sum(a * math.log(a / b) for a, b in zip(p, q, strict=True)) / 5
    assert value(ImageDistillation(temperature), z_p, z_q).item() == pytest.approx(wanted)


def test_logit_matching_is_the_mean_square():
    z_p, z_q = logits()
    assert value(LogitMatching(), z_p, z_q).item() == pytest.approx(((z_p - z_q) ** 2).mean())


@pytest.mark.parametrize("threshold", [0.0, 0.5, 0.7, 1.0])
def test_pseudo_labels_are_hard_where_the_teacher_is_sure_and_two_elsewhere(threshold):
    z_p, z_q = logits(batch=12)
    wanted, sure = 0.0, 0
    for one, other in zip(z_p, z_q, strict=True):
        p, q = softmax(one), softmax(other)
        first, second = sorted(range(4), key=lambda c: -p[c])[:2]
        if -sum(a * math.log(a) for a in p) <= threshold * math.log(4):
            wanted -= math.log(q[first]) / 12
            sure += 1
        else:
            both = p[first] + p[second]
            share = p[first] * math.log(q[first]) + p[second] * math.log(q[second])
            wanted -= 0.3 * share / both / 12
    assert (sure == 0, sure == 12) == (threshold == 0.0, threshold == 1.0)
    assert value(PseudoLabels(threshold, 0.3), z_p, z_q).item() == pytest.approx(wanted)


def test_soft_inception_asks_for_the_targets_own_share_and_no_more():
    z_p, _ = logits(batch=3)
    targets = np.array([[1.0, 0, 0, 0], [0.02, 0.94, 0.02, 0.02], [0, 0, 0, 1.0]])
    p = [softmax(row) for row in z_p]
    wanted = (-math.log(p[0][0]) + (p[1][1] - 0.94) ** 2 - math.log(p[2][3])) / 3
    assert value(SoftInception(), z_p, targets=targets).item() == pytest.approx(wanted)


def test_soft_inception_of_labels_is_cross_entropy():
    z_p, _ = logits(batch=2)
    wanted = -(math.log(softmax(z_p[0])[1]) + math.log(softmax(z_p[1])[2])) / 2
    assert value(SoftInception(), z_p, targets=[1, 2]).item() == pytest.approx(wanted)


def test_marginal_distance_is_the_equation():
    images, labels = images_of(6), torch.tensor([0, 1, 0, 2, 1, 0])
    term = MarginalDistance(lower=0.01, upper=0.05)
    step = step_on(term, images, targets=labels)
    features = step.teacher[LastMap()].mean((2, 3)).double().numpy()
    wanted, counted = 0.0, 0
    for i, own in enumerate(labels.tolist()):
        members = [features[j] for j in range(6) if labels[j] == own]
        if len(members) == 1:
            continue
        centre = sum(members) / len(members)
        norms = np.linalg.norm(features[i]) * np.linalg.norm(centre)
        distance = 1 - features[i] @ centre / norms
        wanted += max(0.01 - distance, 0) + max(distance - 0.05, 0)
        counted += 1
    assert counted == 5
    assert wanted > 0
    assert term(step).item() == pytest.approx(wanted / counted, rel=1e-4)


def norm_inputs(network, images):
    """What enters each batch norm, beside the norm."""
    seen = []
    handles = [
        module.register_forward_pre_hook(lambda m, i: seen.append((m, i[0])))
        for module in network.modules()
        if isinstance(module, nn.BatchNorm2d)
    ]
    network(images)
    for handle in handles:
        handle.remove()
    return seen


def gaps(network, images):
    """Of each layer, gaps (2, B, F) of means and deviations."""
    found = []
    for norm, x in norm_inputs(network, images):
        mean, std = x.mean((2, 3)), (x.var((2, 3), correction=0) + 1e-6).sqrt()
        stored = (norm.running_var + 1e-6).sqrt()
        found.append(torch.stack([mean - norm.running_mean, std - stored]).abs())
    return found


@pytest.mark.parametrize(("quantile", "emphasis"), [(0.0, 1.0), (0.5, 2.0), (0.9, 3.0)])
def test_slack_statistics_are_the_equation(quantile, emphasis):
    network, images = small_network(), 2 * images_of(7)
    term = SlackStatistics(quantile, emphasis)
    noise = torch.randn(images.shape, generator=Rng.seeded(0, images.device).random)
    wanted = 0.0
    layers = gaps(network, images)
    for layer, (gap, of_noise) in enumerate(zip(layers, gaps(network, noise), strict=True)):
        for image in range(7):
            weight = emphasis if image % len(layers) == layer else 1.0
            for part in range(2):
                slack = np.quantile(of_noise[part].flatten().numpy(), quantile)
                for g in gap[part, image].tolist():
                    wanted += weight * max(g - slack, 0) ** 2 / gap.shape[2] / 7
    assert term(step_on(term, images, teacher=network)).item() == pytest.approx(wanted, rel=1e-4)


def test_slack_leaves_images_alone_that_are_no_worse_than_noise():
    network = small_network()
    noise = images_of(4)
    none, much = (
        term(step_on(term, noise, teacher=network)).item()
        for term in (SlackStatistics(0.0), SlackStatistics(1.0))
    )
    assert much < 0.2 * none


def norm_outputs(network, images):
    seen = []
    handles = [
        module.register_forward_hook(lambda m, i, o: seen.append(o))
        for module in network.modules()
        if isinstance(module, nn.BatchNorm2d)
    ]
    network(images)
    for handle in handles:
        handle.remove()
    return seen


def test_channel_attention_is_the_equation():
    teacher, student, images = small_network(), small_network(seed=1), images_of(3)
    wanted = 0.0
    pairs = zip(norm_outputs(teacher, images), norm_outputs(student, images), strict=True)
    for p, q in pairs:
        for image in range(3):
            a, b = (
                np.array([(plane**2).mean().item() for plane in x[image]], dtype=float)
                for x in (p, q)
            )
            gap = a / np.linalg.norm(a) - b / np.linalg.norm(b)
            wanted += (gap**2).mean() / 3
    term = ChannelAttention()
    found = term(step_on(term, images, teacher=teacher, student=student)).item()
    assert found == pytest.approx(wanted, rel=1e-4)


def test_channel_attention_minds_no_scale():
    p = torch.rand(2, 3, 4, 4)

    def of(q):
        term = ChannelAttention()
        step = given_step(term)
        step.teacher = {NormOutputs(): (p,)}
        step.student = {NormOutputs(): (q,)}
        return term(step).item()

    assert of(5 * p) == pytest.approx(0, abs=1e-12)
    assert of(p.flip(1)) > 0


def test_feature_matching_is_the_equation():
    teacher, student, images = small_network(), small_network(seed=1), images_of(3)
    pairs = zip(norm_outputs(teacher, images), norm_outputs(student, images), strict=True)
    wanted = sum(((p - q) ** 2).mean().item() for p, q in pairs)
    term = FeatureMatching()
    found = term(step_on(term, images, teacher=teacher, student=student)).item()
    assert found == pytest.approx(wanted, rel=1e-4)


@pytest.mark.parametrize("term", [ChannelAttention(), FeatureMatching()])
def test_nothing_is_lost_between_equals(term):
    assert term(step_on(term, images_of(2))).item() == 0
