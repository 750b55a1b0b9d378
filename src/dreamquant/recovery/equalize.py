"""Cross-layer equalization and absorption of high biases: the same function, easier to quantize."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from dreamquant.quantization.clips import ChannelClip
from dreamquant.quantization.prepare import FoldedNorm, Preparation
from dreamquant.recovery.links import Link, find_links
from dreamquant.recovery.unfold import Layer, weight_from_rows, weight_rows

_ROUNDS = 100
# Training leaves channels with weights of 1e-13, which compute nothing, beside a constant. To make
# such a weight as large as others multiplies that constant by millions.
_DEAD = 1e-4  # of a layer's largest channel
_SETTLED = 1e-3  # largest change of a scale's logarithm at which the iteration ends


@dataclass(frozen=True)
class Equalize(Preparation):
    """Scales the channels between two layers so that both weights have the same range in them.

    Nagel et al., ICCV 2019, section 4.1: ``s = sqrt(r1 / r2)`` divides the output channels of the
    first layer and multiplies the input channels of the second. The scale passes through ReLU and,
    with :class:`ClipPerChannel` before, through ReLU6. Pairs overlap, so all pairs are repeated
    until the scales no longer change. Channels that compute nothing keep their scale.
    """

    def apply(self, network: nn.Module, example: Tensor) -> None:
        """Equalize all pairs of linked layers."""
        links = find_links(network, layers_of(network), example)
        for _ in range(_ROUNDS):
            moved = [_equalize(network, link) for link in links]
            if not moved or max(moved) < _SETTLED:
                return


@dataclass(frozen=True)
class AbsorbBias(Preparation):
    """Moves the part of a channel that is almost always above zero into the next layer's bias.

    Nagel et al., section 4.1.3: ``c = max(0, mean - deviations * deviation)`` of each channel. A
    ReLU passes this part unchanged for all but few values. Where the next layer pads with zeros,
    its outputs at the border change too. It takes layers with biases, see :class:`GiveBiases`.

    Attributes:
        deviations: how far a channel is assumed to reach below its mean, in standard deviations.
    """

    exact: ClassVar[bool] = False
    deviations: float = 3.0

    def apply(self, network: nn.Module, example: Tensor) -> None:
        """Absorb the bias where a folded batch norm tells how a channel is distributed."""
        for link in find_links(network, layers_of(network), example):
            if link.relu and link.norm is not None:
                known = network.get_submodule(link.norm)
                if isinstance(known, FoldedNorm):
                    _absorb(network, link, known, self.deviations)


def layers_of(network: nn.Module) -> list[str]:
    """Names of all convolution and linear modules."""
    kinds = (nn.modules.conv._ConvNd, nn.Linear)
    return [name for name, module in network.named_modules() if isinstance(module, kinds)]


def _equalize(network: nn.Module, link: Link) -> float:
    """Equalize one pair; returns the largest absolute logarithm of its scales."""
    first = cast(Layer, network.get_submodule(link.first))
    second = cast(Layer, network.get_submodule(link.second))
    norm = None if link.norm is None else network.get_submodule(link.norm)
    if isinstance(norm, _BatchNorm) and not norm.affine:
        return 0.0
    before = weight_rows(first.weight, first).abs().amax(2).flatten()
    if isinstance(norm, _BatchNorm):
        before = before * norm.weight.abs() * (cast(Tensor, norm.running_var) + norm.eps).rsqrt()
    after = _by_input(second).abs().amax((1, 2)).flatten()
    alive = (before > _DEAD * before.max()) & (after > _DEAD * after.max())
    scale = torch.where(alive, before / after.where(alive, torch.ones_like(after)), 1.0).sqrt()
    _divide(network, link, first, norm, scale)
    multiply_inputs(second, scale)
    return float(scale.log().abs().max())


def _divide(
    network: nn.Module, link: Link, first: Layer, norm: nn.Module | None, scale: Tensor
) -> None:
    """Divide the first layer's output channels, its batch norm and its clip by ``scale``."""
    if isinstance(norm, _BatchNorm):
        norm.weight.div_(scale)
        norm.bias.div_(scale)
    else:
        rows = weight_rows(first.weight, first)
        wide = scale.view(rows.shape[0], rows.shape[1], 1)
        first.weight.copy_(weight_from_rows(rows / wide, first))
        if first.bias is not None:
            first.bias.div_(scale)
    if isinstance(norm, FoldedNorm):
        norm.mean.div_(scale)
        norm.deviation.div_(scale)
    if link.clip is not None:
        cast(ChannelClip, network.get_submodule(link.clip)).end.div_(scale)


def _by_input(layer: Layer) -> Tensor:
    """Weights as (G, O, positions of the kernel, input channels of a group)."""
    rows = weight_rows(layer.weight, layer)
    inputs = getattr(layer, "in_channels", rows.shape[2]) // rows.shape[0]
    return rows.view(*rows.shape[:2], -1, inputs)


def multiply_inputs(layer: Layer, scale: Tensor) -> None:
    """Multiply a layer's weights by a factor for each of its input channels."""
    grouped = _by_input(layer)
    wide = scale.view(grouped.shape[0], 1, 1, -1)
    layer.weight.copy_(weight_from_rows((grouped * wide).flatten(2), layer))


def effect_of(layer: Layer, weight: Tensor, inputs: Tensor) -> Tensor:
    """The contribution (O,) of constant input channels (I,) to outputs away from the border."""
    rows = weight_rows(weight, layer)
    count = len(inputs) // rows.shape[0]
    grouped = rows.view(*rows.shape[:2], -1, count).sum(2)
    constant = inputs.to(rows.dtype).view(rows.shape[0], count, 1)
    return (grouped @ constant).flatten()


def _absorb(network: nn.Module, link: Link, known: FoldedNorm, deviations: float) -> None:
    first = cast(Layer, network.get_submodule(link.first))
    second = cast(Layer, network.get_submodule(link.second))
    absorbed = (known.mean - deviations * known.deviation).clamp(min=0)
    if link.clip is not None:
        clip = cast(ChannelClip, network.get_submodule(link.clip))
        absorbed = torch.minimum(absorbed, clip.end)
        clip.end.sub_(absorbed)
    cast(Tensor, first.bias).sub_(absorbed)
    known.mean.sub_(absorbed)
    cast(Tensor, second.bias).add_(effect_of(second, second.weight, absorbed))
