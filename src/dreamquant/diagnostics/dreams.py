"""Synthetic images to look at, drawn from a random generator that the run does not use."""

from __future__ import annotations

import torch
from torch import Tensor

from dreamquant.synthesis.source import Images
from dreamquant.training.batch import Batch

BATCH = 32
"""Images looked at together, whatever the method's batch is, so that runs can be compared."""


@torch.no_grad()
def dream(images: Images, random: torch.Generator, targets: Tensor | None = None) -> Batch:
    """A batch as the method makes images now; the run's own random numbers are not used.

    Args:
        images: of the run.
        random: of all that is drawn.
        targets: in place of those that the method draws.
    """
    count = BATCH if targets is None else len(targets)
    return images.make(images.ask(count, random, targets))
