"""AKT's divergences, against plain loops."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from dreamquant.networks.module_outputs import NormOutputs
from dreamquant.terms.feature_distillation import (
    ChannelAttentionDistillation,
    SpatialAttentionDistillation,
)
from given_steps import given_step

T = 8.0


def softmax(row: list[float]) -> list[float]:
    weights = [math.exp(value / T) for value in row]
    return [weight / sum(weights) for weight in weights]


def spatial(image: Tensor) -> list[float]:
    squares = [
        sum(image[c, i, j].item() ** 2 for c in range(3)) / 3 for i in range(4) for j in range(4)
    ]
    length = math.sqrt(sum(value**2 for value in squares))
    return [value / length for value in squares]


def channel(image: Tensor) -> list[float]:
    return [sum(value.item() ** 2 for value in plane.flatten()) / 16 for plane in image]


@pytest.mark.parametrize(
    ("term", "attention"),
    [(SpatialAttentionDistillation(), spatial), (ChannelAttentionDistillation(), channel)],
)
def test_each_divergence_is_the_equation(term, attention) -> None:
    random = torch.Generator().manual_seed(0)
    p, q = torch.randn(2, 2, 5, 3, 4, 4, generator=random).double()  # two layers of five images
    step = given_step(term)
    step.teacher, step.student = {NormOutputs(): tuple(p)}, {NormOutputs(): tuple(q)}
    wanted = 0.0
    for layer in range(2):
        for image in range(5):
            of_p, of_q = (softmax(attention(each[layer, image])) for each in (p, q))
            wanted += sum(a * math.log(a / b) for a, b in zip(of_p, of_q, strict=True)) / 5
    assert term(step).item() == pytest.approx(T**2 * wanted, rel=1e-6)
    step.student = step.teacher
    assert term(step).item() == pytest.approx(0.0, abs=1e-12)
