"""Distillation of independent labels."""

import math

import pytest
import torch

from dreamquant.terms.distillation import KnowledgeDistillation
from dreamquant.terms.image_distillation import ImageDistillation
from dreamquant.terms.label_distillation import LabelDistillation


def divergence(p, q, temperature):
    """Binary KL of one label, in plain floats."""
    a, b = (1 / (1 + math.exp(-z / temperature)) for z in (p, q))
    return a * math.log(a / b) + (1 - a) * math.log((1 - a) / (1 - b))


@pytest.mark.parametrize("mean", [True, False])
def test_it_is_the_binary_divergence_of_each_label(step_for, mean):
    random = torch.Generator().manual_seed(0)
    p, q = (torch.randn(3, 4, generator=random) * 5 for _ in range(2))
    term = LabelDistillation(2.0, mean=mean)
    per_image = [
        sum(divergence(*pair, 2.0) for pair in zip(a, b, strict=True)) / (4 if mean else 1)
        for a, b in zip(p.tolist(), q.tolist(), strict=True)
    ]
    found = term(step_for(term, teacher=p, student=q))
    assert found.item() == pytest.approx(4 * sum(per_image) / 3, rel=1e-5)


def test_it_is_finite_for_outputs_of_any_size(step_for):
    term = LabelDistillation(1.0)
    loss = term(step_for(term, teacher=torch.tensor([[1e4, -1e4]]), student=torch.zeros(1, 2)))
    assert loss.item() == pytest.approx(math.log(2), rel=1e-5)


def test_distillation_by_a_softmax_has_this_form_for_labels():
    assert KnowledgeDistillation(4.0).for_labels() == LabelDistillation(4.0)
    assert ImageDistillation(4.0).for_labels() == LabelDistillation(4.0, mean=False)
