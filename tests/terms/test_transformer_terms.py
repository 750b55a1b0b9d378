"""Terms of methods for transformers, against plain loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from dreamquant.networks.attention_taps import (
    AttentionScores,
    HeadOutputs,
    PatchAttention,
    PatchTokens,
)
from dreamquant.synthesis.targets import Mixtures, Regions, SoftLogits
from dreamquant.terms.attention_priors import (
    PRIORS,
    REGIONS,
    AttentionPriors,
    RegionCrossEntropy,
    cropped,
    prior_maps,
)
from dreamquant.terms.head_distillation import HeadDistillation, StructureDistillation
from dreamquant.terms.head_similarity import HeadSimilarity
from dreamquant.terms.masked_attention import AttentionDiversity, MaskedAlignment
from dreamquant.terms.patch_similarity import PatchSimilarityEntropy
from dreamquant.terms.total_variation import TotalVariation, TotalVariationTo, total_variation
from given_steps import given_step, given_view

C1, C2 = 0.01**2, 0.03**2


def numbers(*shape, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape))


def of_teacher(term, tap, layers, **attributes):
    return term(given_step(term, teacher={"taps": {tap: layers}}, **attributes)).item()


def ssim(x, y):
    mx, my, vx, vy = x.mean(), y.mean(), x.var(), y.var()
    covariance = ((x - mx) * (y - my)).mean()
    luminance = (2 * mx * my + C1) / (mx**2 + my**2 + C1)
    return luminance * (2 * covariance + C2) / (vx + vy + C2)


def structure(x, y):
    covariance = ((x - x.mean()) * (y - y.mean())).mean()
    return (covariance + C2 / 2) / (x.std() * y.std() + C2 / 2)


def unit(row):
    return (row - row.min()) / (row.max() - row.min())


def test_patch_similarity_entropy_is_the_trapezoid_over_a_sum_of_gaussians():
    layers = (numbers(2, 5, 4), numbers(2, 3, 6, seed=1))
    expected = 0.0
    for tokens in layers:
        x = tokens.numpy()
        x = x / np.linalg.norm(x, axis=-1, keepdims=True)
        similar = [(each @ each.T).ravel() for each in x]
        points = np.linspace(np.min(similar), np.max(similar), 7)
        entropies = []
        for row in similar:
            gaussians = np.exp(-(((points[:, None] - row) / 0.1) ** 2) / 2)
            density = gaussians.mean(1) / (0.1 * math.sqrt(2 * math.pi)) + 1e-4
            entropies.append(np.trapezoid(-density * np.log(density), points))
        expected -= np.mean(entropies)
    term = PatchSimilarityEntropy(bandwidth=0.1, points=7)
    assert of_teacher(term, PatchTokens(), layers) == pytest.approx(expected)


def test_total_variation_is_four_norms_of_the_batch():
    x = numbers(2, 3, 4, 5)
    across, down, up_right, down_right = (
        math.sqrt(sum(float(d) ** 2 for d in (x[..., a, b] - x[..., c, e]).flatten()))
        for a, b, c, e in (
            (slice(None), slice(0, 4), slice(None), slice(1, 5)),
            (slice(0, 3), slice(None), slice(1, 4), slice(None)),
            (slice(1, 4), slice(0, 4), slice(0, 3), slice(1, 5)),
            (slice(0, 3), slice(0, 4), slice(1, 4), slice(1, 5)),
        )
    )
    whole = across + down + up_right + down_right
    assert total_variation(x).item() == pytest.approx(whole)
    value = TotalVariation()(given_step(TotalVariation(), images=x)).item()
    assert value == pytest.approx(across + down + (up_right + down_right) / math.sqrt(2))
    wanted = 2750 * math.sqrt(120 / (32 * 3 * 224 * 224))
    term = TotalVariationTo(2500, 3000)
    assert term(given_step(term, images=x)).item() == pytest.approx(abs(whole - wanted))


def test_head_similarity_is_one_minus_squared_ssim_of_every_pair_of_heads():
    layers = (numbers(2, 3, 4, 4), numbers(2, 3, 4, 4, seed=1))
    values = [
        1 - ssim(unit(s[b, i, q].numpy()), unit(s[b, j, q].numpy())) ** 2
        for s in layers
        for b in range(2)
        for q in range(4)
        for i, j in ((0, 1), (0, 2), (1, 2))
    ]
    found = of_teacher(HeadSimilarity(), AttentionScores(heads=2), layers)
    assert found == pytest.approx(np.mean(values))


def distilled(term, teacher, student, attention=None):
    taps = {HeadOutputs(): teacher}
    if attention is not None:
        taps[PatchAttention()] = attention
    answers = {"teacher": {"taps": taps}, "student": {"taps": {HeadOutputs(): student}}}
    return term(given_step(term, **answers)).item()


def test_head_distillation_is_one_minus_ssim_of_tokens():
    teacher, student = (numbers(2, 2, 3, 5),), (numbers(2, 2, 3, 5, seed=1),)
    p, q = teacher[0].numpy().reshape(-1, 5), student[0].numpy().reshape(-1, 5)
    expected = np.mean([1 - ssim(unit(a), unit(b)) for a, b in zip(q, p, strict=True)])
    assert distilled(HeadDistillation(), teacher, student) == pytest.approx(expected)


def test_structure_distillation_doubles_the_most_attended_patches():
    teacher, student = numbers(2, 2, 4, 5), numbers(2, 2, 4, 5, seed=1)  # a class token, 3 patches
    attention = numbers(2, 2, 3, seed=2).softmax(-1)
    values = []
    for b in range(2):
        best = 1 + int(attention[b].mean(0).argmax())
        for head in range(2):
            for token in range(4):
                x, y = student[b, head, token].numpy(), teacher[b, head, token].numpy()
                values.append((2 if token == best else 1) * (1 - structure(unit(x), unit(y))))
    found = distilled(StructureDistillation(), (teacher,), (student,), (attention,))
    assert found == pytest.approx(np.mean(values))


def test_masked_alignment_reads_attended_patches_alone():
    teacher, student = (numbers(3, 2, 8, seed=s).softmax(-1) for s in (0, 1))
    term = MaskedAlignment(fraction=0.25, dropped=0.0)
    taps = [{"taps": {PatchAttention(): (each,)}} for each in (teacher, student)]
    step = given_step(term, teacher=taps[0], student=taps[1], random=torch.Generator())
    p, q = teacher.mean(1), student.mean(1)
    expected = np.mean([(p[b] - q[b]).abs()[p[b].argsort()[-2:]].mean() for b in range(3)])
    assert term(step).item() == pytest.approx(float(expected))


def test_attention_diversity_is_the_negative_entropy_of_a_gaussian():
    scores = numbers(2, 3, 5, 5)
    values = []
    for each in scores.mean(1).numpy():
        rows = each / np.linalg.norm(each, axis=1, keepdims=True)
        values.append(-0.5 * math.log(2 * math.pi * math.e * ((rows @ rows.T).var() + 1e-8)))
    found = of_teacher(AttentionDiversity(), AttentionScores(), (scores,), random=torch.Generator())
    assert found == pytest.approx(np.mean(values))


def test_prior_maps_are_mixtures_on_the_grid_of_patches():
    parameters = torch.tensor([[0.25, 0.5, 0.2, 1.0], [0.9, 0.1, 0.1, 0.5]])
    found = prior_maps(parameters, 9)
    expected = np.zeros(9)
    for row, column, spread, weight in parameters.tolist():
        for i in range(9):
            square = ((i // 3 + 0.5) / 3 - row) ** 2 + ((i % 3 + 0.5) / 3 - column) ** 2
            expected[i] += weight * math.exp(-square / (2 * spread**2))
    assert found.tolist() == pytest.approx((expected / expected.max()).tolist(), abs=1e-5)


def test_attention_priors_weigh_the_deeper_half():
    random = torch.Generator().manual_seed(0)
    asked = Mixtures().sample(2, random)
    layers = tuple(numbers(2, 3, 9, seed=s).softmax(-1).float() for s in range(4))
    found = of_teacher(AttentionPriors(), PatchAttention(), layers, condition={PRIORS: asked}.get)
    maps = prior_maps(asked.view(2, 8, 5, 4), 9)
    expected = 0.0
    for index in (2, 3):
        scaled = layers[index] / layers[index].amax(-1, keepdim=True)
        wanted = torch.stack([maps[:, (head + index) % 8] for head in range(3)], 1)
        expected += (index + 1) / 4 * (scaled - wanted).square().mean()
    assert found == pytest.approx(float(expected), rel=1e-5)


def test_regions_are_crops_with_labels_of_their_own():
    images = torch.arange(64.0).view(1, 1, 8, 8)
    crop = cropped(images, torch.tensor([0.5]), torch.tensor([0.0]), torch.tensor([0.5]))
    assert crop.shape == images.shape
    assert crop.mean().item() == pytest.approx(images[..., 4:, :4].mean().item(), abs=0.5)
    asked = torch.zeros(1, 4, 5)
    asked[0, 1] = torch.tensor([1.0, 0.0, 0.0, 0.5, 0.7])  # of three classes the last
    logits = torch.tensor([[0.2, -1.0, 0.4]])
    term = RegionCrossEntropy()
    step = given_step(
        term, images=images, condition={REGIONS: asked.flatten(1)}.get, others=[given_view(logits)]
    )
    assert term(step).item() == pytest.approx(-logits.log_softmax(1)[0, 2].item())


def test_regions_of_a_feature_map_are_those_of_a_picture_of_one_channel():
    maps = torch.rand(2, 8, 6)
    region = (torch.tensor([0.5, 0.0]), torch.tensor([0.0, 0.25]), torch.tensor([0.5, 0.75]))
    assert cropped(maps, *region).equal(cropped(maps[:, None], *region)[:, 0])


def test_targets_of_several_things_are_in_their_ranges():
    random = torch.Generator().manual_seed(0)
    soft = SoftLogits(5, 10).sample(50, 4, random)
    assert torch.allclose(soft.sum(1), torch.ones(50))
    assert (soft.amax(1) > 0.9).all()
    used, top, left, side, label = Regions().sample(50, random).view(50, 4, 5).unbind(-1)
    assert set(used.sum(1).tolist()) == {1, 2, 3, 4}
    assert (top + side <= 1).all()
    assert (left + side <= 1).all()
    assert (label < 1).all()
