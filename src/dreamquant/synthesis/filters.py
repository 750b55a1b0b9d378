"""Which of given pictures to keep: those that look to the teacher like what it was trained on.

GenQ (Li et al., ECCV 2024) filters what a text-to-image network drew; its filters serve any
pictures. Known from summaries of the paper: pictures of low energy are kept, and those are dropped
whose presence in a batch raises the distance of its statistics to those of the batch norms.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import Tensor, nn

from dreamquant.errors import DataError
from dreamquant.networks.norm_inputs import BatchNormInputs, Statistics
from dreamquant.networks.probe import batch_norms
from dreamquant.synthesis.given import Given, Rows
from dreamquant.training.watched import Watched

_BATCH = 64


@dataclass(frozen=True)
class ChosenRows:
    """Some rows of images on disk."""

    rows: Rows
    chosen: tuple[int, ...]

    @property
    def targets(self) -> Tensor | None:
        """Those on record of these rows."""
        targets = self.rows.targets
        return None if targets is None else targets[list(self.chosen)]

    def __len__(self) -> int:
        """Number of images."""
        return len(self.chosen)

    def read(self, rows: Sequence[int]) -> Tensor:
        """Images (B, C, H, W) of these rows, normalised, float32, on the CPU.

        Raises:
            DataError: one cannot be read; it is named.
        """
        return self.rows.read([self.chosen[row] for row in rows])


def energies(logits: Tensor) -> Tensor:
    """``-log Σ_c exp z_c`` (B,) of logits (B, classes): the lower, the surer the network is."""
    return -logits.logsumexp(1)


def sensitivities(s: Statistics) -> Tensor:
    """By how much each picture raises its batch's distance to the batch norms' statistics: (B,).

    ``D(batch) - D(batch without i)``, D the squared gap of means and variances, averaged over
    channels and then over layers.

    Args:
        s: of each picture apart, at least two.
    """
    count = len(s.mean)
    square = s.var + s.mean.square()
    whole = _distance(s, s.mean.mean(0), square.mean(0))
    mean = (s.mean.sum(0) - s.mean) / (count - 1)
    return whole - _distance(s, mean, (square.sum(0) - square) / (count - 1))


def _distance(s: Statistics, mean: Tensor, square: Tensor) -> Tensor:
    gap = (mean - s.stored_mean).square() + (square - mean.square() - s.stored_var).square()
    return (s.weight * gap).sum(-1)


@torch.no_grad()
def filtered(given: Given, network: nn.Module, example: Tensor, fraction: float) -> Given:
    """The pictures that pass both filters, in their order.

    First the ``fraction`` of lowest energy stays; of these, pictures go that raise the distance of
    their batch of 64. A network without batch norm has the first filter alone.

    Args:
        given: pictures.
        network: teacher, in eval mode, on the CPU.
        example: normalised images (B, C, H, W).
        fraction: in (0, 1].

    Raises:
        DataError: none passes.
    """
    energy = torch.cat([energies(network(given.rows.read(rows))) for rows in _batches(given.size)])
    count = max(1, round(fraction * given.size))
    kept = energy.argsort(stable=True)[:count].sort().values.tolist()
    if batch_norms(network):
        kept = [kept[place] for place in _lowering(given.rows, network, example, kept)]
    if not kept:
        raise DataError(
            f"none of the {given.size} pictures passes the filters",
            where=f"--select {fraction}",
            remedy="give more pictures, or leave --select out",
        )
    return replace(given, rows=ChosenRows(given.rows, tuple(kept)), size=len(kept))


def _lowering(
    rows: Rows, network: nn.Module, example: Tensor, kept: Sequence[int]
) -> Iterator[int]:
    """Places in ``kept`` of pictures that do not raise the distance of their batch."""
    tap = BatchNormInputs(per_image=True)
    watched = Watched(network, example, (tap,))
    for batch in _batches(len(kept)):
        if len(batch) == 1:  # nothing to compare a picture that is left over with
            yield batch[0]
            continue
        _, read = watched.read(rows.read([kept[place] for place in batch]))
        raised = sensitivities(cast(Statistics, read[tap])).tolist()
        yield from (place for place, each in zip(batch, raised, strict=True) if each <= 0)


def _batches(count: int) -> Iterator[range]:
    return (range(first, min(first + _BATCH, count)) for first in range(0, count, _BATCH))
