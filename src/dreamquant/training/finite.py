"""A run that diverged stops and is never saved: its last good checkpoint is left to go back to."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch

from dreamquant.errors import TrainingError

if TYPE_CHECKING:
    from dreamquant.training.loop import Training

_SHOWN = 3


def require_finite_losses(losses: Mapping[str, float], iteration: int) -> None:
    """Refuse losses that are no numbers.

    Raises:
        TrainingError: it names the iteration and the terms.
    """
    broken = [name for name, value in losses.items() if not math.isfinite(value)]
    if broken:
        raise _diverged(f"the loss is not finite: {', '.join(broken)}", iteration)


def require_finite_networks(training: Training) -> None:
    """Refuse parameters that are no numbers: a finite loss may have such a gradient.

    Raises:
        TrainingError: it names the iteration, the network and the first tensors.
    """
    named = [
        (f"{player}'s {name}", parameter)
        for player, network in (("generator", training.generator), ("student", training.student))
        for name, parameter in network.named_parameters()
    ]
    # In one transfer, since each makes the device wait.
    finite = torch.stack([parameter.isfinite().all() for _, parameter in named]).tolist()
    broken = [name for (name, _), whole in zip(named, finite, strict=True) if not whole]
    if broken:
        raise _diverged(_first(broken), training.iteration)


def _first(broken: Sequence[str]) -> str:
    more = len(broken) - _SHOWN
    others = f", and {more} more tensors" if more > 0 else ""
    return f"not finite: {', '.join(broken[:_SHOWN])}{others}"


def _diverged(what: str, iteration: int) -> TrainingError:
    return TrainingError(
        what,
        where=f"iteration {iteration}",
        remedy="the last good checkpoint is kept; another --seed or more bits may train, or a "
        "lower learning rate in a method of your own",
    )
