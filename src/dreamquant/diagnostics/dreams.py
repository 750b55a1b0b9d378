"""Synthetic images to look at, drawn so that the run never notices."""

from __future__ import annotations

import torch
from torch import Tensor

from dreamquant.training.loop import Training
from dreamquant.training.step import Batch, Request

BATCH = 32
"""Images looked at together, whatever the schedule's batch is, so that runs can be compared."""


@torch.no_grad()
def dream(training: Training, random: torch.Generator, targets: Tensor | None = None) -> Batch:
    """A batch from the generator as it is now; the run's luck does not move.

    Args:
        training: the run.
        random: of all that is drawn.
        targets: in place of those that the method draws.
    """
    recipe = training.recipe
    if targets is None:
        targets = recipe.targets.sample(BATCH, training.classes, random)
    count = len(targets)
    centres = None if recipe.centres is None else recipe.centres.sample(count, random)
    noise = torch.randn((count, recipe.latent), generator=random, device=random.device)
    return training.invent(Request(targets, noise, centres))
