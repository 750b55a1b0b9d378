"""Biases in the form of integer kernels: multiples of input scale times weight scale."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn


@torch.no_grad()
def round_biases(network: nn.Module, units: Mapping[str, Tensor], norms: Mapping[str, str]) -> None:
    """Change the bias of each layer by at most half a unit, to a multiple of the unit.

    If a batch norm follows the layer, its shift is changed so that the bias of both together is a
    multiple of the unit once the batch norm is folded.

    Args:
        network: its biases and batch norms are changed.
        units: by name of the layer, float64, one value for each output channel: the product of its
            input scale and its weight scale.
        norms: names of batch norms, each with the layer before it.
    """
    for name, unit in units.items():
        layer = network.get_submodule(name)
        if name not in norms.values() and isinstance(layer.bias, Tensor):
            layer.bias.copy_(_whole(layer.bias.double(), unit))
    for name, layer_name in norms.items():
        norm = cast(nn.BatchNorm2d, network.get_submodule(name))
        bias = network.get_submodule(layer_name).bias
        if norm.affine and norm.running_mean is not None:
            _round_shift(norm, bias if isinstance(bias, Tensor) else None, units[layer_name])


def _round_shift(norm: nn.BatchNorm2d, bias: Tensor | None, unit: Tensor) -> None:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    factor = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    before = norm.bias.double() / factor - norm.running_mean.double()
    if bias is not None:
        before += bias.double()
    moved = (_whole(before, unit) - before) * factor
    # With a factor of zero, the output does not depend on the layer.
    norm.bias.add_(torch.where(factor == 0, 0, moved).to(norm.bias.dtype))


def _whole(values: Tensor, unit: Tensor) -> Tensor:
    return (values / unit).round() * unit
