"""Views: differentiable random perturbations of images, so that gradients reach the original.

Images are (B, C, H, W), normalised; one operator is drawn for the whole batch.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

Operator = Callable[[Tensor, torch.Generator], Tensor]


def flip(images: Tensor, choice: torch.Generator) -> Tensor:
    """Mirrored left to right."""
    return images.flip(3)


def shift(images: Tensor, choice: torch.Generator) -> Tensor:
    """Moved by up to an eighth of the side, the border reflected."""
    height, width = images.shape[2:]
    reach = max(min(height, width) // 8, 1)
    padded = F.pad(images, (reach,) * 4, mode="reflect")
    top, left = _draw(2 * reach + 1, choice), _draw(2 * reach + 1, choice)
    return padded[:, :, top : top + height, left : left + width]


def crop(images: Tensor, choice: torch.Generator) -> Tensor:
    """A window of at least seven tenths of the side, scaled back up."""
    height, width = images.shape[2:]
    part = 0.7 + 0.3 * _uniform(choice)
    rows, columns = max(int(part * height), 1), max(int(part * width), 1)
    top, left = _draw(height - rows + 1, choice), _draw(width - columns + 1, choice)
    window = images[:, :, top : top + rows, left : left + columns]
    return F.interpolate(window, (height, width), mode="bilinear", align_corners=False)


def jitter(images: Tensor, choice: torch.Generator) -> Tensor:
    """Contrast and brightness changed by up to a fifth."""
    contrast = 0.8 + 0.4 * _uniform(choice)
    brightness = 0.4 * _uniform(choice) - 0.2
    return images * contrast + brightness


def noise(images: Tensor, choice: torch.Generator) -> Tensor:
    """Gaussian noise of a tenth of the images' unit deviation."""
    drawn = torch.randn(images.shape, generator=choice).to(images.device)
    return images + 0.1 * drawn


def cutout(images: Tensor, choice: torch.Generator) -> Tensor:
    """A square of a quarter of the side set to the mean."""
    height, width = images.shape[2:]
    side = max(min(height, width) // 4, 1)
    top, left = _draw(height - side + 1, choice), _draw(width - side + 1, choice)
    keep = torch.ones(height, width, device=images.device)
    keep[top : top + side, left : left + side] = 0
    return images * keep


OPERATORS: tuple[Operator, ...] = (flip, shift, crop, jitter, noise, cutout)


def random_view(images: Tensor, choice: torch.Generator) -> Tensor:
    """One operator drawn uniformly: choosing one beats chaining several (RIS, table 2).

    Args:
        images: (B, C, H, W), normalised.
        choice: on the CPU, so that a draw does not wait for the device.

    Returns:
        A batch of the same shape.
    """
    return OPERATORS[_draw(len(OPERATORS), choice)](images, choice)


def _draw(below: int, choice: torch.Generator) -> int:
    return int(torch.randint(below, (), generator=choice))


def _uniform(choice: torch.Generator) -> float:
    return float(torch.rand((), generator=choice))
