"""Lists the batch norms of a network."""

from __future__ import annotations

from torch import nn
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
