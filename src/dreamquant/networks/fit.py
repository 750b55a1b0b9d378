"""Prepares a network for losses; one forward pass shows what must be changed."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dreamquant.networks.checkpointing import keeping_activations, switch_off
from dreamquant.networks.choices import Kind
from dreamquant.networks.endings import Sigmoids, fit_ending


def fit(module: nn.Module, shape: tuple[int, ...], task: Kind | None = None) -> tuple[str, ...]:
    """Let ``module`` return logits and run without checkpointing; its layers do not change.

    Args:
        module: a network in eval mode; it gets forward hooks. A second call adds none.
        shape: shape of one input.
        task: task of the network; ``None`` if it is to be recognised from the output.

    Returns:
        A description of each change.

    Raises:
        Exception: any exception of the network's code on such an input.
    """
    random = torch.Generator().manual_seed(0)
    images = torch.randn(2, *shape, generator=random).requires_grad_()
    sigmoids = Sigmoids()
    # With gradient, because some networks use checkpointing only then.
    with torch.enable_grad(), keeping_activations() as checkpointed, sigmoids:
        output = module(images)
    notes = fit_ending(
        module, output.detach() if isinstance(output, Tensor) else output, sigmoids, task
    )
    if not checkpointed:
        return notes
    switch_off(module)
    return (*notes, f"activation checkpointing of {len(checkpointed)} parts is switched off")
