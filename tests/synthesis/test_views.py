from __future__ import annotations

import pytest
import torch

from dreamquant.synthesis.views import OPERATORS, Mixup, random_view


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
    dice = torch.Generator().manual_seed(0)
    seen = {random_view(images, dice).sum().item() for _ in range(100)}
    again = random_view(images, torch.Generator().manual_seed(0))
    assert len(seen) >= len(OPERATORS)
    assert torch.equal(again, random_view(images, torch.Generator().manual_seed(0)))


def test_mixup_interpolates_images_and_targets_alike():
    images = torch.arange(4.0).view(4, 1, 1, 1).expand(4, 1, 2, 2)
    targets = torch.eye(4)
    mixed, soft = Mixup().mix(images, targets, torch.Generator().manual_seed(5))
    torch.testing.assert_close(soft.sum(1), torch.ones(4))
    torch.testing.assert_close(mixed[:, 0, 0, 0], soft @ torch.arange(4.0))


def test_mixup_share_follows_its_alpha():
    dice = torch.Generator().manual_seed(0)
    shares = torch.tensor([Mixup(alpha=0.1)._share(dice) for _ in range(400)])
    assert 0.4 < shares.mean() < 0.6
    assert ((shares < 0.1) | (shares > 0.9)).float().mean() > 0.7
