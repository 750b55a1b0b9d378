from __future__ import annotations

import pytest
import torch

from dreamquant.terms.augment import OPERATORS, random_view


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("size", [8, 33])
def test_operators_keep_the_shape_and_pass_a_gradient(operator, size):
    images = torch.randn(3, 2, size, size, requires_grad=True)
    seen = operator(images, torch.Generator().manual_seed(1))
    assert seen.shape == images.shape
    assert not torch.equal(seen, images)
    (gradient,) = torch.autograd.grad(seen.square().sum(), images)
    assert gradient.abs().sum() > 0


def test_random_view_is_reproducible_and_uses_every_operator():
    images = torch.randn(1, 1, 8, 8)
    choice = torch.Generator().manual_seed(0)
    seen = {random_view(images, choice).sum().item() for _ in range(100)}
    again = random_view(images, torch.Generator().manual_seed(0))
    assert len(seen) >= len(OPERATORS)
    assert torch.equal(again, random_view(images, torch.Generator().manual_seed(0)))
