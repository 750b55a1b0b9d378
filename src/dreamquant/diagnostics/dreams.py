"""Makes synthetic images for display, with a separate random generator."""

from __future__ import annotations

import torch
from torch import Tensor

from dreamquant.synthesis.source import Images
from dreamquant.training.batch import Batch

BATCH = 32
"""Number of images, equal for all methods, so that runs can be compared."""


@torch.no_grad()
def dream(images: Images, random: torch.Generator, targets: Tensor | None = None) -> Batch:
    """A batch of images in the current state of the method; the run's random numbers are not used.

    Args:
        images: images of the run.
        random: random generator for all random values.
        targets: targets to use; by default the method draws them.
    """
    count = BATCH if targets is None else len(targets)
    return images.make(images.ask(count, random, targets))
