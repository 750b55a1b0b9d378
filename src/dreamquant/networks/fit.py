"""A network made ready for losses on images: what a forward pass shows must be changed first."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dreamquant.networks.checkpointing import keeping_activations, switch_off
from dreamquant.networks.choices import Kind
from dreamquant.networks.endings import Sigmoids, fit_ending


def fit(module: nn.Module, shape: tuple[int, ...], task: Kind | None = None) -> tuple[str, ...]:
    """Let ``module`` return logits, and checkpoint no activations; its layers stay as they are.

    Args:
        module: in eval mode; it gets forward hooks. Fitted again, it gets none.
        shape: of one input.
        task: that its outputs are for; ``None`` for what they look made for.

    Returns:
        What was changed, in words.

    Raises:
        Exception: whatever the network's own code raises on such an input.
    """
    random = torch.Generator().manual_seed(0)
    images = torch.randn(2, *shape, generator=random).requires_grad_()
    sigmoids = Sigmoids()
    # With gradient: some networks checkpoint only what one flows through.
    with torch.enable_grad(), keeping_activations() as checkpointed, sigmoids:
        output = module(images)
    notes = fit_ending(
        module, output.detach() if isinstance(output, Tensor) else output, sigmoids, task
    )
    if not checkpointed:
        return notes
    switch_off(module)
    return (*notes, f"activation checkpointing of {len(checkpointed)} parts switched off")
