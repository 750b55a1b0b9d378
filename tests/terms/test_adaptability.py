from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dreamquant.terms.adaptability import (
    Balance,
    Band,
    entropy,
    normalised_disagreement_entropy,
)

CASES = [(2, 2, 1.0), (4, 10, 3.0), (16, 100, 0.3)]


def softmax(row):
    top = max(row)
    weights = [math.exp(z - top) for z in row]
    return [weight / sum(weights) for weight in weights]


def entropies(rows):
    return [-sum(p * math.log(p) for p in softmax(row)) for row in rows]


def normalised(z_p, z_q):
    h = entropies(z_p - z_q)
    least, most = min(h), math.log(z_p.shape[1])
    return [(value - least) / (most - least) for value in h]


def logits(batch, classes, scale):
    return scale * np.random.default_rng(batch).normal(size=(2, batch, classes))


def evaluate(term, step_for, z_p, z_q, labels=None):
    step = step_for(
        term,
        teacher=torch.as_tensor(z_p),
        student=torch.as_tensor(z_q),
        targets=None if labels is None else torch.as_tensor(labels),
    )
    return term(step).item()


@pytest.mark.parametrize(("batch", "classes", "scale"), CASES)
def test_entropy_is_the_equation(batch, classes, scale):
    z, _ = logits(batch, classes, scale)
    np.testing.assert_allclose(entropy(torch.from_numpy(z)), entropies(z), rtol=1e-12)


@pytest.mark.parametrize(("batch", "classes", "scale"), CASES)
def test_normalised_entropy_is_the_equation(batch, classes, scale):
    z_p, z_q = logits(batch, classes, scale)
    h = normalised_disagreement_entropy(torch.from_numpy(z_p), torch.from_numpy(z_q))
    np.testing.assert_allclose(h, normalised(z_p, z_q), rtol=1e-10)


@pytest.mark.parametrize(("lower", "upper"), [(0.1, 0.8), (0.4, 0.5), (0.0, 1.0)])
@pytest.mark.parametrize(("batch", "classes", "scale"), CASES)
def test_band_is_the_equation(batch, classes, scale, lower, upper, step_for):
    z_p, z_q = logits(batch, classes, scale)
    h = normalised(z_p, z_q)
    below = sum(max(lower - value, 0) for value in h) / batch
    above = sum(max(value - upper, 0) for value in h) / batch
    loss = evaluate(Band(lower, upper), step_for, z_p, z_q)
    assert loss == pytest.approx(below + above, rel=1e-10, abs=1e-14)


@pytest.mark.parametrize(("disagree", "agree"), [(0.2, 0.1), (1.0, 0.0), (0.0, 1.0)])
@pytest.mark.parametrize(("batch", "classes", "scale"), CASES)
def test_balance_is_the_equation(batch, classes, scale, disagree, agree, step_for):
    z_p, z_q = logits(batch, classes, scale)
    labels = [(3 * i) % classes for i in range(batch)]
    wanted = 0.0
    for i, label in enumerate(labels):
        wanted -= disagree * math.log(softmax(z_p[i] - z_q[i])[label]) / batch
        wanted -= agree * math.log(softmax(z_p[i] + z_q[i])[label]) / batch
    loss = evaluate(Balance(disagree, agree), step_for, z_p, z_q, labels)
    assert loss == pytest.approx(wanted, rel=1e-10)


@pytest.mark.parametrize(
    "term", [Band(0.1, 0.8), Band(0.45, 0.5), Balance(0.2, 0.1)], ids=["band", "narrow", "balance"]
)
def test_gradient_with_respect_to_both_logits(term, step_for):
    z_p, z_q = (torch.from_numpy(z).requires_grad_() for z in logits(4, 5, 2.0))
    labels = torch.tensor([1, 0, 3, 4])

    def loss(z_p, z_q):
        return term(step_for(term, teacher=z_p, student=z_q, targets=labels))

    assert torch.autograd.gradcheck(loss, (z_p, z_q))


@given(
    seed=st.integers(0, 2**31),
    batch=st.integers(1, 8),
    classes=st.integers(2, 50),
    scale=st.sampled_from([0.0, 1e-6, 1e-4, 1e-3, 1e-2, 1.0, 30.0, 1e4]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
@settings(max_examples=200, deadline=None)
def test_normalised_entropy_lies_between_0_and_1_with_a_finite_gradient(
    seed, batch, classes, scale, dtype
):
    random = torch.Generator().manual_seed(seed)
    z_p = torch.randn(batch, classes, generator=random, dtype=dtype).requires_grad_()
    gap = scale * torch.randn(batch, classes, generator=random, dtype=dtype)
    h = normalised_disagreement_entropy(z_p, z_p.detach() + gap)
    assert h.min() >= 0
    assert h.max() <= 1
    (gradient,) = torch.autograd.grad(h.sum(), z_p)
    assert gradient.isfinite().all()


def test_rounding_does_not_lift_normalised_entropy_above_1():
    # In float32 log C itself is off by more than the entropies' distance from it.
    random = torch.Generator().manual_seed(0)
    z_p = torch.randn(500, 8, 55, generator=random)
    gaps = 1e-4 * torch.randn(z_p.shape, generator=random)
    highest = max(
        normalised_disagreement_entropy(z, z + gap).max().item()
        for z, gap in zip(z_p, gaps, strict=True)
    )
    assert 0.5 < highest <= 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shift", [0.0, 2.5])
def test_a_batch_in_full_agreement_is_finite(dtype, shift, step_for):
    torch.manual_seed(0)
    z = torch.randn(4, 10, dtype=dtype, requires_grad=True)
    term = Band(0.1, 0.8)
    loss = term(step_for(term, teacher=z, student=z.detach() + shift))
    (gradient,) = torch.autograd.grad(loss, z)
    assert loss.isfinite()
    assert gradient.isfinite().all()


def test_the_sample_with_least_entropy_is_at_0_and_full_agreement_at_1():
    z_p = torch.zeros(3, 4, dtype=torch.float64)
    z_q = torch.tensor([[9.0, 0, 0, 0], [0, 0, 0, 0], [1.0, 0, 0, 0]], dtype=torch.float64)
    h = normalised_disagreement_entropy(z_p, z_q)
    assert h[0] == 0
    assert h[1].item() == pytest.approx(1)
    assert 0 < h[2] < 1


def test_the_batch_minimum_takes_part_in_the_gradient():
    z_p, z_q = (torch.from_numpy(z) for z in logits(3, 5, 2.0))
    z_p.requires_grad_()
    h = normalised_disagreement_entropy(z_p, z_q)
    other = int(h.argmax())
    (gradient,) = torch.autograd.grad(h[other], z_p)
    assert gradient[int(h.argmin())].abs().max() > 0
