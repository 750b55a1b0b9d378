from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dreamquant.terms.distillation import (
    DifferenceEntropy,
    KnowledgeDistillation,
    StudentCrossEntropy,
)
from given_steps import given_step

CASES = [(1, 2, 1.0), (4, 10, 3.0), (3, 100, 0.3)]


def softmax(row):
    top = max(row)
    weights = [math.exp(z - top) for z in row]
    return [weight / sum(weights) for weight in weights]


def logits(batch, classes, scale):
    random = np.random.default_rng(classes)
    return scale * random.normal(size=(2, batch, classes))


def evaluate(term, step_for, z_p, z_q, labels=None):
    step = step_for(
        term,
        teacher=torch.as_tensor(z_p),
        student=torch.as_tensor(z_q),
        targets=None if labels is None else torch.as_tensor(labels),
    )
    return term(step).item()


@pytest.mark.parametrize(("batch", "classes", "scale"), CASES)
def test_student_cross_entropy_is_the_equation(batch, classes, scale, step_for):
    z_p, z_q = logits(batch, classes, scale)
    labels = [(3 * i) % classes for i in range(batch)]
    wanted = sum(-math.log(softmax(z_q[i])[labels[i]]) for i in range(batch)) / batch
    loss = evaluate(StudentCrossEntropy(), step_for, z_p, z_q, labels)
    assert loss == pytest.approx(wanted, rel=1e-10)


@pytest.mark.parametrize("temperature", [1.0, 4.0, 20.0])
@pytest.mark.parametrize(("batch", "classes", "scale"), CASES)
def test_knowledge_distillation_is_the_equation(batch, classes, scale, temperature, step_for):
    z_p, z_q = logits(batch, classes, scale)
    total = 0.0
    for i in range(batch):
        p, q = softmax(z_p[i] / temperature), softmax(z_q[i] / temperature)
        for c in range(classes):
            total += p[c] * math.log(p[c] / q[c])
    wanted = temperature**2 * total / (batch * classes)
    loss = evaluate(KnowledgeDistillation(temperature), step_for, z_p, z_q)
    assert loss == pytest.approx(wanted, rel=1e-8)


@pytest.mark.parametrize("temperature", [1.0, 5.0, 20.0])
@pytest.mark.parametrize(("batch", "classes", "scale"), CASES)
def test_difference_entropy_is_the_equation(batch, classes, scale, temperature, step_for):
    z_p, z_q = logits(batch, classes, scale)
    total = 0.0
    for i in range(batch):
        p = softmax((z_p[i] - z_q[i]) / temperature)
        total += sum(share * math.log(share) for share in p)
    wanted = temperature**2 * total / batch
    loss = evaluate(DifferenceEntropy(temperature), step_for, z_p, z_q)
    assert loss == pytest.approx(wanted, rel=1e-12)


@pytest.mark.parametrize(
    "term",
    [StudentCrossEntropy(), KnowledgeDistillation(temperature=3), DifferenceEntropy(temperature=3)],
    ids=lambda term: type(term).__name__,
)
def test_gradient_with_respect_to_both_logits(term, step_for):
    z_p, z_q = (torch.from_numpy(z).requires_grad_() for z in logits(3, 4, 2.0))
    labels = torch.tensor([1, 0, 3])

    def loss(z_p, z_q):
        return term(step_for(term, teacher=z_p, student=z_q, targets=labels))

    assert torch.autograd.gradcheck(loss, (z_p, z_q))


def test_distillation_is_nothing_between_equals(step_for):
    z_p, _ = logits(4, 10, 3.0)
    term = KnowledgeDistillation(temperature=20)
    assert evaluate(term, step_for, z_p, z_p) == pytest.approx(0, abs=1e-12)
    assert evaluate(term, step_for, z_p, z_p + 5) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("classes", [2, 10, 1000])
@pytest.mark.parametrize("temperature", [1.0, 5.0, 20.0])
def test_difference_entropy_is_least_where_the_logits_match_up_to_a_shift(
    classes, temperature, step_for
):
    term = DifferenceEntropy(temperature)
    least = -(temperature**2) * math.log(classes)
    z_p, z_q = logits(4, classes, 1.0)
    shift = np.array([[0.0], [1.0], [-3.0], [100.0]])
    assert evaluate(term, step_for, z_p, z_p + shift) == pytest.approx(least, rel=1e-12)
    assert least < evaluate(term, step_for, z_p, z_q) <= 0


@given(
    gap=st.lists(st.floats(-50, 50), min_size=2, max_size=12),
    temperature=st.sampled_from([1.0, 5.0, 20.0]),
)
@settings(max_examples=100, deadline=None)
def test_difference_entropy_is_above_its_least_for_every_gap_that_is_no_shift(gap, temperature):
    term, d = DifferenceEntropy(temperature), torch.tensor([gap], dtype=torch.float64)
    least = -(temperature**2) * math.log(len(gap))
    loss = term(given_step(term, teacher=d, student=torch.zeros_like(d))).item()
    assert least - 1e-9 <= loss <= 1e-9
    if max(gap) - min(gap) > 0.01:
        assert loss > least + 1e-9


@pytest.mark.parametrize("temperature", [1.0, 5.0, 20.0])
def test_for_small_gaps_difference_entropy_is_half_their_variance(temperature, step_for):
    random = np.random.default_rng(0)
    z_p, gap = random.normal(size=(2, 6, 10))
    gap *= 1e-3
    least = -(temperature**2) * math.log(10)
    above = evaluate(DifferenceEntropy(temperature), step_for, z_p, z_p - gap) - least
    assert above == pytest.approx(0.5 * np.mean([np.var(row) for row in gap]), rel=2e-3)


@pytest.mark.parametrize(
    "term",
    [StudentCrossEntropy(), KnowledgeDistillation(temperature=20), DifferenceEntropy(20)],
    ids=lambda term: type(term).__name__,
)
def test_float32_agrees_with_float64(term, step_for):
    z_p, z_q = logits(8, 10, 4.0)
    labels = list(range(8))
    exact = evaluate(term, step_for, z_p, z_q, labels)
    single = evaluate(term, step_for, z_p.astype("f4"), z_q.astype("f4"), labels)
    assert single == pytest.approx(exact, rel=1e-5)
