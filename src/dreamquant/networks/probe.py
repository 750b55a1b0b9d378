"""Lists the batch norms of a network."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def batch_norms(module: nn.Module) -> list[tuple[str, _BatchNorm]]:
    """Batch norms with running statistics and their names, in the order of registration.

    A module that occurs several times is listed once, under its first name.
    """
    return [
        (name, part)
        for name, part in module.named_modules()
        if isinstance(part, _BatchNorm) and part.running_mean is not None
    ]


def unlike(example: Tensor) -> list[Tensor]:
    """Three batches that differ as much as batches can: code that depends on the images shows it.

    Args:
        example: normalised images (B, C, H, W); the batches have its shape, type and device.
    """
    return [torch.full_like(example, value) for value in (-3.0, 0.0, 3.0)]
