"""Sums over many positions from which a layer's best weights follow in closed form."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from dreamquant import distributed
from dreamquant.recovery.unfold import (
    Layer,
    count_positions,
    groups_of,
    input_rows,
    output_rows,
)

# Values of unfolded inputs at a time: 64 MiB of float32.
_CHUNK = 2**24
_ROUNDING = 1e-6  # of a mean of products, relative


class Moments(NamedTuple):
    """Means over positions of what a layer reads and of what is wanted of it, float64.

    Attributes:
        inputs: (G, K).
        wanted: (G, O).
        gram: (G, K, K), mean of products of inputs.
        cross: (G, K, O), mean of inputs times what is wanted.
    """

    inputs: Tensor
    wanted: Tensor
    gram: Tensor
    cross: Tensor

    def centred(self) -> Moments:
        """Covariances: what is left for the weights where a bias is free."""
        gram = self.gram - self.inputs.unsqueeze(2) * self.inputs.unsqueeze(1)
        # Of inputs that hardly vary, the difference is rounding of single-precision products.
        noise = _ROUNDING * self.gram.diagonal(dim1=1, dim2=2)
        gram = gram + torch.diag_embed(noise)
        cross = self.cross - self.inputs.unsqueeze(2) * self.wanted.unsqueeze(1)
        return Moments(torch.zeros_like(self.inputs), torch.zeros_like(self.wanted), gram, cross)

    def with_as_many(self, other: Moments) -> Moments:
        """Means over the positions of both, which are as many."""
        return Moments(*((mine + its) / 2 for mine, its in zip(self, other, strict=True)))

    def bias(self, rows: Tensor) -> Tensor:
        """The best bias (G, O) to weights ``rows`` (G, O, K)."""
        return self.wanted - (rows.double() @ self.inputs.unsqueeze(2)).squeeze(2)


class Sums:
    """Adds up the moments of a layer batch by batch, in memory that does not grow.

    Args:
        layer: a convolution of any kind, or a linear layer.
        positions: how many are read of each batch, drawn without replacement; ``None`` reads all.
        random: generator on the CPU that draws them.
    """

    def __init__(self, layer: Layer, positions: int | None, random: torch.Generator) -> None:
        self.layer, self.positions, self.random = layer, positions, random
        self.count = 0
        self._sums: tuple[Tensor, ...] | None = None

    def add(self, x: Tensor, wanted: Tensor) -> None:
        """Take in one batch.

        Args:
            x: input of the layer.
            wanted: what its output should be, shaped like its output.
        """
        picked = self._pick(count_positions(wanted, self.layer)).to(x.device)
        self.count += len(picked)
        for chunk in torch.split(picked, max(1, _CHUNK // self._inputs_per_position())):
            self._add(input_rows(x, self.layer, chunk), output_rows(wanted, self.layer, chunk))

    def _add(self, rows: Tensor, wanted: Tensor) -> None:
        turned = rows.transpose(1, 2)
        # Products in single precision, sums of them in double: a chunk is short.
        sums = (rows.sum(1), wanted.sum(1), turned @ rows, turned @ wanted)
        if self._sums is None:
            self._sums = tuple(each.double() for each in sums)
        else:
            for total, each in zip(self._sums, sums, strict=True):
                total.add_(each)

    def _pick(self, there: int) -> Tensor:
        if self.positions is None or self.positions >= there:
            return torch.arange(there)
        # One from each of equally long stretches: spread over all images, unlike a random subset.
        starts = torch.arange(self.positions, dtype=torch.float64)
        inside = torch.rand(self.positions, generator=self.random, dtype=torch.float64)
        return ((starts + inside) * (there / self.positions)).long().clamp(max=there - 1)

    def _inputs_per_position(self) -> int:
        groups, weight = groups_of(self.layer), self.layer.weight
        outputs = getattr(self.layer, "out_channels", None) or len(weight)
        return weight.numel() * groups // int(outputs)

    def moments(self) -> Moments:
        """Means so far, over all processes.

        Raises:
            ValueError: nothing has been added.
        """
        if self._sums is None:
            raise ValueError("no batch has been added")
        means = (distributed.mean(total / self.count) for total in self._sums)
        return Moments(*means)


def moments_of(layer: Layer, batches: Iterable[tuple[Tensor, Tensor]]) -> Moments:
    """Moments over all positions of ``(input, wanted output)`` batches."""
    sums = Sums(layer, None, torch.Generator())
    for x, wanted in batches:
        sums.add(x, wanted)
    return sums.moments()
