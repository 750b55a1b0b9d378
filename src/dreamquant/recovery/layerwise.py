"""The solution for one layer: rounded weights that give the wanted outputs, and a matching bias."""

from __future__ import annotations

from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from dreamquant.quantization.student import QuantizedWeight, Student
from dreamquant.recovery.as_run import as_run
from dreamquant.recovery.branches import Branch
from dreamquant.recovery.gram import Moments, Sums
from dreamquant.recovery.levels import Levels, search_levels
from dreamquant.recovery.rounding import (
    damped,
    least_squares_target,
    round_rows,
    validated_damp,
)
from dreamquant.recovery.unfold import Layer, weight_from_rows, weight_rows
from dreamquant.recovery.walk import LayerMet


class Solver(NamedTuple):
    """Computes a layer's weights from its inputs and its wanted outputs.

    Attributes:
        damp: strength of the ridge toward the earlier weights, as a fraction of the mean squared
            input; 0 chooses it by cross-validation between two halves of the images.
        sweeps: sweeps of coordinate descent.
        positions: number of output positions that are read, over all images.
    """

    damp: float
    sweeps: int
    positions: int

    @torch.no_grad()
    def solve(self, met: LayerMet, student: Student, teacher: nn.Module, branch: Branch) -> None:
        """Give the student's layer the weights and the bias of least error."""
        layer = cast(Layer, teacher.get_submodule(met.name))
        halves = halves_at(met, layer, self.positions)
        moments = halves[0].with_as_many(halves[1])
        mended = student.network.get_submodule(met.name)
        free = mended.bias is not None or branch.norm is not None
        inner = moments.centred() if free else moments
        rows = weight_rows(layer.weight, layer)
        gram = damped(inner.gram, self.damp or self._validated(halves, rows, free))
        target = least_squares_target(inner, rows, gram).float()
        weight = student.quantized_weight(met.name)
        rounded, levels = self._round(target, gram.float(), weight)
        put_weight(weight, layer, rounded, levels)
        if free:
            put_bias(student.network, met.name, branch, moments.bias(rounded).flatten())

    @staticmethod
    def _validated(halves: tuple[Moments, Moments], rows: Tensor, free: bool) -> float:
        first, second = (half.centred() if free else half for half in halves)
        return validated_damp((first, second), rows)

    def _round(
        self, target: Tensor, gram: Tensor, weight: QuantizedWeight
    ) -> tuple[Tensor, Levels]:
        quantizer = weight.quantizer
        shared = quantizer.start.numel() < target.shape[0] * target.shape[1]
        power = gram.diagonal(dim1=1, dim2=2).unsqueeze(1)
        levels = search_levels(
            target, quantizer.grid, symmetric=quantizer.symmetric, importance=power, shared=shared
        )
        return round_rows(target, gram, levels, self.sweeps)


def put_weight(weight: QuantizedWeight, layer: Layer, rows: Tensor, levels: Levels) -> None:
    """Write rows that lie on their levels into a student's layer, and fix these levels."""
    weight.quantizer.hold(levels.scale.flatten(), levels.zero_point.flatten())
    weight.latent.copy_(weight_from_rows(rows, layer))


@torch.no_grad()
def correct_bias(
    met: LayerMet, student: Student, teacher: nn.Module, branch: Branch, positions: int
) -> None:
    """Give the student's layer the best bias for its present weights."""
    mended = student.network.get_submodule(met.name)
    if mended.bias is None and branch.norm is None:
        return
    layer = cast(Layer, teacher.get_submodule(met.name))
    rows = weight_rows(cast(Tensor, mended.weight), layer)
    first, second = halves_at(met, layer, positions)
    bias = first.with_as_many(second).bias(rows).flatten()
    put_bias(student.network, met.name, branch, bias)


def halves_at(met: LayerMet, layer: Layer, positions: int) -> tuple[Moments, Moments]:
    """Moments of a layer's inputs and wanted outputs, on two halves of the images.

    Args:
        met: the layer, with its inputs and wanted outputs on all images.
        layer: the teacher's layer.
        positions: number of positions that are read, over all images.
    """
    each = -(-positions // (2 * len(met.inputs)))
    runs = [as_run(layer, x) for x in met.inputs]
    plain = runs[0][0]
    first, second = (Sums(plain, each, torch.Generator().manual_seed(seed)) for seed in range(2))
    for (_, x), wanted in zip(runs, met.wanted, strict=True):
        middle = (len(x) + 1) // 2
        first.add(x[:middle], wanted[:middle])
        second.add(x[len(x) // 2 :], wanted[len(x) // 2 :])
    return first.moments(), second.moments()


def put_bias(network: nn.Module, name: str, branch: Branch, bias: Tensor) -> None:
    """Replace a layer's bias, or give one to a layer that has none, as :func:`add_bias` does."""
    own = network.get_submodule(name).bias
    add_bias(network, name, branch, bias - own if isinstance(own, Tensor) else bias)


def add_bias(network: nn.Module, name: str, branch: Branch, bias: Tensor) -> None:
    """Add to a layer's bias; where it has none, shift the mean of the batch norm after it.

    A layer with neither is left unchanged.
    """
    own = network.get_submodule(name).bias
    if isinstance(own, Tensor):
        own.add_(bias)
    elif branch.norm is not None:
        norm = cast(nn.BatchNorm2d, network.get_submodule(branch.norm))
        assert norm.running_mean is not None
        norm.running_mean.sub_(bias)
