from __future__ import annotations

import torch

from dreamquant.recovery.views import Mixup


def test_mixup_interpolates_images_and_targets_alike():
    images = torch.arange(4.0).view(4, 1, 1, 1).expand(4, 1, 2, 2)
    targets = torch.eye(4)
    mixed, soft = Mixup().mix(images, targets, torch.Generator().manual_seed(5))
    torch.testing.assert_close(soft.sum(1), torch.ones(4))
    torch.testing.assert_close(mixed[:, 0, 0, 0], soft @ torch.arange(4.0))


def test_mixup_fraction_follows_its_alpha():
    choice = torch.Generator().manual_seed(0)
    fractions = torch.tensor([Mixup(alpha=0.1)._drawn(choice) for _ in range(400)])
    assert 0.4 < fractions.mean() < 0.6
    assert ((fractions < 0.1) | (fractions > 0.9)).float().mean() > 0.7
