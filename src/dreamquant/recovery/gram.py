"""Moments over many positions, from which a layer's best weights follow in closed form."""

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

# Number of unfolded input values held at a time: 64 MiB of float32.
_CHUNK = 2**24


class Moments(NamedTuple):
    """Means over positions of a layer's inputs, its wanted outputs and their products, float64.

    Attributes:
        inputs: (G, K), mean inputs.
        wanted: (G, O), mean wanted outputs.
        gram: (G, K, K), mean products of inputs.
        cross: (G, K, O), mean products of inputs and wanted outputs.
    """

    inputs: Tensor
    wanted: Tensor
    gram: Tensor
    cross: Tensor

    def centred(self) -> Moments:
        """Covariances in place of products: the problem for the weights where a bias is solved for
        too.
        """
        gram = self.gram - _products(self.inputs, self.inputs)
        cross = self.cross - _products(self.inputs, self.wanted)
        return Moments(torch.zeros_like(self.inputs), torch.zeros_like(self.wanted), gram, cross)

    def moved(self, inputs: Tensor, wanted: Tensor) -> Moments:
        """Moments of the same values plus constants ``inputs`` (G, K) and ``wanted`` (G, O)."""
        to, by = self.inputs + inputs, self.wanted + wanted
        gram = self.gram + _products(to, to) - _products(self.inputs, self.inputs)
        cross = self.cross + _products(to, by) - _products(self.inputs, self.wanted)
        return Moments(to, by, gram, cross)

    def with_as_many(self, other: Moments) -> Moments:
        """Means over the positions of both; each must have the same number of positions."""
        return Moments(*((mine + its) / 2 for mine, its in zip(self, other, strict=True)))

    def bias(self, rows: Tensor) -> Tensor:
        """The best bias (G, O) for the weights ``rows`` (G, O, K)."""
        return self.wanted - (rows.double() @ self.inputs.unsqueeze(2)).squeeze(2)


def _products(left: Tensor, right: Tensor) -> Tensor:
    """Products of all pairs, (G, L, R)."""
    return left.unsqueeze(2) * right.unsqueeze(1)


class Sums:
    """Adds up the moments of a layer batch by batch, in constant memory.

    Args:
        layer: a convolution of any kind, or a linear layer.
        positions: number of positions to read of each batch, drawn without replacement; ``None``
            reads all.
        random: generator on the CPU that draws the positions.
    """

    def __init__(self, layer: Layer, positions: int | None, random: torch.Generator) -> None:
        self.layer, self.positions, self.random = layer, positions, random
        self.count = 0
        self._sums: tuple[Tensor, ...] | None = None
        self._origin = torch.empty(0), torch.empty(0)

    def add(self, x: Tensor, wanted: Tensor) -> None:
        """Add one batch.

        Args:
            x: input of the layer.
            wanted: wanted output, of the shape of the layer's output.
        """
        picked = self._pick(count_positions(wanted, self.layer)).to(x.device)
        self.count += len(picked)
        for chunk in torch.split(picked, max(1, _CHUNK // self._inputs_per_position())):
            self._add(input_rows(x, self.layer, chunk), output_rows(wanted, self.layer, chunk))

    def _add(self, rows: Tensor, wanted: Tensor) -> None:
        if self._sums is None:
            # Products of values far from zero would hide, in float32, how little they vary.
            self._origin = rows.mean(1, keepdim=True), wanted.mean(1, keepdim=True)
        rows, wanted = rows - self._origin[0], wanted - self._origin[1]
        turned = rows.transpose(1, 2)
        # Products are float32 and sums of chunks float64: a chunk is short enough for that.
        sums = (rows.sum(1), wanted.sum(1), turned @ rows, turned @ wanted)
        if self._sums is None:
            self._sums = tuple(each.double() for each in sums)
        else:
            for total, each in zip(self._sums, sums, strict=True):
                total.add_(each)

    def _pick(self, there: int) -> Tensor:
        if self.positions is None or self.positions >= there:
            return torch.arange(there)
        # One position from each of equally long intervals: this covers all images evenly.
        starts = torch.arange(self.positions, dtype=torch.float64)
        inside = torch.rand(self.positions, generator=self.random, dtype=torch.float64)
        return ((starts + inside) * (there / self.positions)).long().clamp(max=there - 1)

    def _inputs_per_position(self) -> int:
        groups, weight = groups_of(self.layer), self.layer.weight
        outputs = getattr(self.layer, "out_channels", None) or len(weight)
        return weight.numel() * groups // int(outputs)

    def moments(self) -> Moments:
        """The means so far, over all processes.

        Raises:
            ValueError: no batch has been added.
        """
        if self._sums is None:
            raise ValueError("no batch has been added")
        means = Moments(*(total / self.count for total in self._sums))
        inputs, wanted = (each.squeeze(1).double() for each in self._origin)
        moved = means.moved(inputs, wanted)
        return Moments(*(distributed.mean(each) for each in moved))


def moments_of(layer: Layer, batches: Iterable[tuple[Tensor, Tensor]]) -> Moments:
    """Moments over all positions of ``(input, wanted output)`` batches."""
    sums = Sums(layer, None, torch.Generator())
    for x, wanted in batches:
        sums.add(x, wanted)
    return sums.moments()
