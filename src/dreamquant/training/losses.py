"""Losses of a step: weighted sums by name, and readings that do not stall the device."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from dreamquant import distributed
from dreamquant.errors import TrainingError
from dreamquant.terms.contract import Weighted
from dreamquant.training.step import Step

Losses = dict[str, Tensor]

DIVERGED = (
    "the last good checkpoint is kept; another --seed or more bits may train, or a lower learning "
    "rate in a method of your own"
)


def total(terms: Sequence[Weighted], step: Step, losses: Losses, player: str, parts: int) -> Tensor:
    """The weighted sum of terms on a step.

    Args:
        terms: with their weights.
        step: the step on which they are called.
        losses: receives each unweighted value, detached, under ``player/Term``.
        player: name of the player that minimises them.
        parts: number of micro-batches of a batch; each counts for this part of the mean.
    """
    values = [weighted.term(step.seen_by(weighted.term)) / parts for weighted in terms]
    for name, value in zip(_names(terms, player), values, strict=True):
        losses[name] = losses.get(name, 0) + value.detach()
    return torch.stack(
        [weighted.weight * value for weighted, value in zip(terms, values, strict=True)]
    ).sum()


def _names(terms: Sequence[Weighted], player: str) -> list[str]:
    """``player/Term`` of each term; a second term of the same kind gets a number."""
    names = [weighted.name for weighted in terms]
    before = [names[:i].count(name) for i, name in enumerate(names)]
    return [f"{player}/{name}{n + 1 if n else ''}" for name, n in zip(names, before, strict=True)]


class Unread:
    """Losses that stay on the device: reading them after every step would stall it."""

    def __init__(self) -> None:
        self._names: list[list[str]] = []
        self._values: list[Tensor] = []

    def add(self, losses: Losses) -> None:
        """Keep the losses of a step."""
        self._names.append(list(losses))
        if losses:
            self._values.append(torch.stack(list(losses.values())))

    def read(self, step: int) -> dict[str, float]:
        """Read all losses in one transfer.

        Args:
            step: number of the last step that was added.

        Returns:
            The losses of this step.

        Raises:
            TrainingError: a loss is not finite; the error names the first such step and its terms.
        """
        fetched: list[float] = []
        if self._values:
            with distributed.together():
                fetched = distributed.mean(torch.cat(self._values)).tolist()
        values, losses = iter(fetched), dict[str, float]()
        for at, names in enumerate(self._names, step - len(self._names) + 1):
            losses = dict(zip(names, values, strict=False))
            require_finite_losses(losses, at)
        self._names.clear()
        self._values.clear()
        return losses


def require_finite_losses(losses: Mapping[str, float], step: int) -> None:
    """Refuse losses that are not numbers.

    Raises:
        TrainingError: it names the step and the terms.
    """
    broken = [name for name, value in losses.items() if not math.isfinite(value)]
    if broken:
        raise TrainingError(
            f"the loss is not finite: {', '.join(broken)}",
            where=f"iteration {step}",
            remedy=DIVERGED,
        )
