"""A run that diverged stops and is never saved: its last good checkpoint is left to go back to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import nn

from dreamquant.errors import TrainingError
from dreamquant.training.losses import DIVERGED

_SHOWN = 3


def require_finite_networks(networks: Mapping[str, nn.Module], step: int) -> None:
    """Refuse parameters that are not numbers: a finite loss may have such a gradient.

    Args:
        networks: by what the error calls them.
        step: after which this was found.

    Raises:
        TrainingError: it names the step, the network and the first tensors.
    """
    named = [
        (f"{player}'s {name}", parameter)
        for player, network in networks.items()
        for name, parameter in network.named_parameters()
    ]
    if not named:
        return
    # In one transfer, since each makes the device wait.
    finite = torch.stack([parameter.isfinite().all() for _, parameter in named]).tolist()
    broken = [name for (name, _), whole in zip(named, finite, strict=True) if not whole]
    if broken:
        raise TrainingError(_first(broken), where=f"iteration {step}", remedy=DIVERGED)


def _first(broken: Sequence[str]) -> str:
    more = len(broken) - _SHOWN
    others = f", and {more} more tensors" if more > 0 else ""
    return f"not finite: {', '.join(broken[:_SHOWN])}{others}"
