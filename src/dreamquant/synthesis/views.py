"""Views: an image perturbed at random, differentiably, so that gradients reach the original.

Images are (B, C, H, W), normalised; one operator is drawn for the whole batch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

Operator = Callable[[Tensor, torch.Generator], Tensor]


def flip(images: Tensor, dice: torch.Generator) -> Tensor:
    """Mirrored left to right."""
    return images.flip(3)


def shift(images: Tensor, dice: torch.Generator) -> Tensor:
    """Moved by up to an eighth of the side, the border reflected."""
    height, width = images.shape[2:]
    reach = max(min(height, width) // 8, 1)
    padded = F.pad(images, (reach,) * 4, mode="reflect")
    top, left = _draw(2 * reach + 1, dice), _draw(2 * reach + 1, dice)
    return padded[:, :, top : top + height, left : left + width]


def crop(images: Tensor, dice: torch.Generator) -> Tensor:
    """A window of at least seven tenths of the side, scaled back up."""
    height, width = images.shape[2:]
    part = 0.7 + 0.3 * _uniform(dice)
    rows, columns = max(int(part * height), 1), max(int(part * width), 1)
    top, left = _draw(height - rows + 1, dice), _draw(width - columns + 1, dice)
    window = images[:, :, top : top + rows, left : left + columns]
    return F.interpolate(window, (height, width), mode="bilinear", align_corners=False)


def jitter(images: Tensor, dice: torch.Generator) -> Tensor:
    """Contrast and brightness changed by up to a fifth."""
    contrast = 0.8 + 0.4 * _uniform(dice)
    brightness = 0.4 * _uniform(dice) - 0.2
    return images * contrast + brightness


def noise(images: Tensor, dice: torch.Generator) -> Tensor:
    """Gaussian noise of a tenth of the images' unit deviation."""
    drawn = torch.randn(images.shape, generator=dice).to(images.device)
    return images + 0.1 * drawn


def cutout(images: Tensor, dice: torch.Generator) -> Tensor:
    """A square of a quarter of the side set to the mean."""
    height, width = images.shape[2:]
    side = max(min(height, width) // 4, 1)
    top, left = _draw(height - side + 1, dice), _draw(width - side + 1, dice)
    keep = torch.ones(height, width, device=images.device)
    keep[top : top + side, left : left + side] = 0
    return images * keep


OPERATORS: tuple[Operator, ...] = (flip, shift, crop, jitter, noise, cutout)


def random_view(images: Tensor, dice: torch.Generator) -> Tensor:
    """One operator drawn uniformly: choosing one beats chaining several (RIS, table 2).

    Args:
        images: (B, C, H, W), normalised.
        dice: on the CPU, so that a draw does not wait for the device.

    Returns:
        A batch of the same shape.
    """
    return OPERATORS[_draw(len(OPERATORS), dice)](images, dice)


@dataclass(frozen=True)
class Mixup:
    """Linear interpolation of synthetic images and their targets (Zhang et al., ICLR 2018).

    ``λ x_i + (1 - λ) x_π(i)`` with λ ~ Beta(α, α), one λ a batch.

    Attributes:
        alpha: of the Beta distribution; 1 draws λ uniformly.
    """

    alpha: float = 1.0

    def mix(self, images: Tensor, targets: Tensor, dice: torch.Generator) -> tuple[Tensor, Tensor]:
        """Mixed images (B, C, H, W) and soft targets (B, classes)."""
        share = self._share(dice)
        other = torch.randperm(len(images), generator=dice).to(images.device)
        return (
            share * images + (1 - share) * images[other],
            share * targets + (1 - share) * targets[other],
        )

    def _share(self, dice: torch.Generator) -> float:
        # A Beta draw from two Gamma draws, since torch's own Beta takes no generator.
        gammas = torch._standard_gamma(torch.full((2,), self.alpha), generator=dice)
        return float(gammas[0] / gammas.sum())


def _draw(below: int, dice: torch.Generator) -> int:
    return int(torch.randint(below, (), generator=dice))


def _uniform(dice: torch.Generator) -> float:
    return float(torch.rand((), generator=dice))
