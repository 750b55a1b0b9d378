from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from dreamquant.terms.classes import TeacherCrossEntropy


def cross_entropy(logits, labels):
    total = 0.0
    for row, label in zip(logits, labels, strict=True):
        total += math.log(sum(math.exp(z) for z in row)) - row[label]
    return total / len(labels)


@pytest.mark.parametrize(("batch", "classes", "scale"), [(1, 2, 1.0), (4, 10, 3.0), (7, 100, 0.1)])
def test_value_is_the_equation(batch, classes, scale, step_for):
    random = np.random.default_rng(batch)
    logits = scale * random.normal(size=(batch, classes))
    labels = random.integers(classes, size=batch)
    term = TeacherCrossEntropy()
    loss = term(step_for(term, teacher=torch.from_numpy(logits), targets=torch.from_numpy(labels)))
    assert loss.item() == pytest.approx(cross_entropy(logits, labels), rel=1e-12)


def test_gradient(step_for):
    torch.manual_seed(0)
    logits = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    labels, term = torch.tensor([0, 3, 3]), TeacherCrossEntropy()

    def loss(z):
        return term(step_for(term, teacher=z, targets=labels))

    assert torch.autograd.gradcheck(loss, (logits,))
