"""GapSSG's term, against plain loops."""

from __future__ import annotations

import math

import pytest
import torch

from dreamquant.terms.gap import GapBalance
from given_steps import given_step


def probabilities(row):
    weights = [math.exp(value) for value in row]
    return [weight / sum(weights) for weight in weights]


def test_it_is_the_equation_and_the_gap_is_a_constant() -> None:
    random = torch.Generator().manual_seed(0)
    p, q = torch.randn(2, 4, 5, generator=random).double()
    targets, term = torch.tensor([0, 3, 1, 4]), GapBalance(agree=0.2)
    q.requires_grad_()
    loss = term(given_step(term, teacher=p, student=q, targets=targets))
    gap = apart = together = 0.0
    for row in range(4):
        of_p, of_q = p[row].tolist(), q[row].tolist()
        y = targets[row]
        pairs = list(zip(of_p, of_q, strict=True))
        gaps = zip(probabilities(of_p), probabilities(of_q), strict=True)
        gap += max(abs(a - b) for a, b in gaps) / 4
        apart -= math.log(probabilities([(a - b) / 2 for a, b in pairs])[y]) / 4
        together -= math.log(probabilities([a + b for a, b in pairs])[y]) / 4
    factor = 1 - math.exp(-gap)
    assert loss.item() == pytest.approx(factor * (apart + 0.2 * together), rel=1e-6)
    (slope,) = torch.autograd.grad(loss, [q])
    free = q.detach().clone().requires_grad_()
    plain = torch.nn.functional.cross_entropy((p - free) / 2, targets)
    plain = plain + 0.2 * torch.nn.functional.cross_entropy(p + free, targets)
    (wanted,) = torch.autograd.grad(factor * plain, [free])
    torch.testing.assert_close(slope, wanted, rtol=1e-5, atol=1e-8)


def test_a_student_that_has_caught_up_leaves_nothing_to_seek() -> None:
    logits, term = torch.randn(4, 5), GapBalance()
    step = given_step(term, teacher=logits, student=logits, targets=torch.tensor([0, 1, 2, 3]))
    assert term(step).item() == 0
