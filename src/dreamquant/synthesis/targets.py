"""Targets: what is asked of each image before it exists."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class OneHot:
    """Labels drawn uniformly from all classes (GDFQ, section 3.2)."""

    def sample(self, batch: int, classes: int, random: torch.Generator) -> Tensor:
        """Labels (batch,), int64, on the device of ``random``."""
        return torch.randint(classes, (batch,), generator=random, device=random.device)
