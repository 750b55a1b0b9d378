"""DQDG's terms against plain loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from dreamquant.terms.dual_generators import CentreDistance, TimeMaskedDistillation
from given_steps import given_step


def test_centre_distance_is_what_lacks_to_the_margin():
    z = torch.from_numpy(np.random.default_rng(0).normal(size=(8, 3)))
    labels = [0, 0, 1, 1, 0, 0, 2, 1]  # class 2 comes from the first generator alone
    apart = z.numpy() - z.numpy().mean(1, keepdims=True)
    short = []
    for c in (0, 1):
        first, second = (
            np.mean([apart[i] for i in range(own, 8, 2) if labels[i] == c], 0) for own in (0, 1)
        )
        cosine = first @ second / np.linalg.norm(first) / np.linalg.norm(second)
        short.append(max(0.9 - (1 - cosine), 0))
    term = CentreDistance(margin=0.9)
    found = term(given_step(term, teacher=z, targets=torch.tensor(labels)))
    assert found.item() == pytest.approx(np.mean(short))


def test_masked_distillation_is_the_divergence_of_selected_images():
    z_p, z_q = 3 * torch.from_numpy(np.random.default_rng(1).normal(size=(2, 5, 4)))
    labels = torch.tensor([0, 3, 1, 1, 2])
    values = []
    for p, q, y in zip(z_p, z_q, labels, strict=True):
        if p.softmax(0)[y] >= 0.2:
            p, q = (p / 2).softmax(0), (q / 2).softmax(0)
            values.append(4 * sum(float(a) * math.log(a / b) for a, b in zip(p, q, strict=True)))
    assert 0 < len(values) < 5
    term = TimeMaskedDistillation(temperature=2.0, least=0.2)
    images = torch.zeros(5, 1, 6, 2)
    step = given_step(
        term, teacher=z_p, student=z_q, targets=labels, images=images, choice=torch.Generator()
    )
    assert term(step).item() == pytest.approx(np.mean(values))


def test_some_frames_in_a_row_take_the_mean_of_all():
    images = torch.randn(3, 1, 40, 4)
    lengths = set()
    for seed in range(20):
        masked = TimeMaskedDistillation(fraction=0.25).masked(
            images, torch.Generator().manual_seed(seed)
        )
        rows = (masked != images).any(-1).all(0)[0].nonzero().flatten().tolist()
        assert rows == list(range(rows[0], rows[0] + len(rows))) if rows else True
        for row in rows:
            assert torch.allclose(masked[:, 0, row], images[:, 0].mean(1))
        lengths.add(len(rows))
    assert max(lengths) <= 10
    assert len(lengths) > 3
