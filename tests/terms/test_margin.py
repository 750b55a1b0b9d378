from __future__ import annotations

import numpy as np
import pytest
import torch

from dreamquant.terms.margin import GaussianMargin
from given_steps import given_step

SIGMA = 0.7


def step_of(gap, learns=True):
    """Teacher and student whose logits are ``gap`` (B,) apart in every class."""
    return given_step(
        GaussianMargin(),
        teacher=gap[:, None] * torch.tensor([1.0, -1, 1, -1]).double(),
        student=torch.zeros(len(gap), 4, dtype=torch.float64),
        images=torch.zeros(1, dtype=torch.float64),
        student_learns=learns,
        random=torch.Generator().manual_seed(3),
    )


def loss_and_slope(kind, gaps):
    gap = torch.tensor(gaps, dtype=torch.float64, requires_grad=True)
    loss = GaussianMargin(kind, SIGMA)(step_of(gap))
    (slope,) = torch.autograd.grad(loss, gap)
    return loss.item(), (slope * len(gaps)).numpy()


def test_kernel_is_the_equation():
    d = np.array([0.1, 0.7, 3.0])
    loss, slope = loss_and_slope("kernel", d)
    weight = np.exp(-(d**2) / (2 * SIGMA**2))
    assert loss == pytest.approx(weight.mean())
    np.testing.assert_allclose(slope, -d / SIGMA**2 * weight)


def test_repulsion_is_the_equation_and_pushes_hardest_where_they_agree():
    d = np.array([0.01, 0.7, 3.0])
    loss, slope = loss_and_slope("repulsion", d)
    weight = np.exp(-(d**2) / (2 * SIGMA**2))
    assert loss == pytest.approx(-(weight * d).mean())
    np.testing.assert_allclose(slope, -weight)
    assert abs(slope[0]) > abs(slope[1]) > abs(slope[2])


def test_random_margin_is_the_equation():
    d = np.array([0.1, 0.7, 3.0])
    loss, slope = loss_and_slope("random-margin", d)
    drawn = torch.randn(3, generator=torch.Generator().manual_seed(3)).abs().numpy()
    margin = SIGMA * drawn
    assert loss == pytest.approx(np.maximum(margin - d, 0).mean(), rel=1e-6)
    np.testing.assert_allclose(slope, np.where(margin > d, -1.0, 0.0))


@pytest.mark.parametrize("kind", ["kernel", "repulsion", "random-margin"])
def test_silent_while_the_student_only_watches(kind):
    assert GaussianMargin(kind)(step_of(torch.ones(2), learns=False)).item() == 0
