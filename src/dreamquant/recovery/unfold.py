"""Convolutions as matrix products of unfolded inputs and rows of weights, for each group.

Every layer computes, at each output position and in each group, ``weight @ inputs + bias``, where
``inputs`` are the K values under the kernel. A depthwise convolution has as many groups as
channels. A transposed convolution is an ordinary one of stride 1 with a flipped kernel, on an input
with zeros between its values. A linear layer has one group and a kernel of size one.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

Layer = _ConvNd | nn.Linear


def groups_of(layer: Layer) -> int:
    """The number of groups in which a layer's channels are connected."""
    return layer.groups if isinstance(layer, _ConvNd) else 1


def weight_rows(weight: Tensor, layer: Layer) -> Tensor:
    """A weight as (G, O, K): G groups of O output channels with K inputs each.

    Args:
        weight: of the shape of ``layer.weight``, or broadcastable to it.
        layer: the layer, which determines the groups.
    """
    if not isinstance(layer, _ConvNd):
        return weight.unsqueeze(0)
    groups, (first, second, *kernel) = layer.groups, weight.shape
    grouped = weight.reshape(groups, first // groups, second, *kernel)
    if layer.transposed:
        grouped = grouped.transpose(1, 2).flip(_axes(kernel, 3))
    return grouped.movedim(2, -1).flatten(2)


def weight_from_rows(rows: Tensor, layer: Layer) -> Tensor:
    """The weight whose :func:`weight_rows` are ``rows`` (G, O, K)."""
    if not isinstance(layer, _ConvNd):
        return rows.squeeze(0)
    groups, outputs, _ = rows.shape
    kernel = layer.kernel_size
    grouped = rows.reshape(groups, outputs, *kernel, -1).movedim(-1, 2)
    if layer.transposed:
        grouped = grouped.flip(_axes(kernel, 3)).transpose(1, 2)
    return grouped.reshape(layer.weight.shape)


def _axes(kernel: Sequence[int], start: int) -> tuple[int, ...]:
    return tuple(range(start, start + len(kernel)))


def input_rows(x: Tensor, layer: Layer, positions: Tensor) -> Tensor:
    """The values under the kernel at some output positions, (G, n, K).

    Args:
        x: input of the layer, (B, C, ...); of a linear layer (..., C).
        layer: a convolution of any kind, or a linear layer.
        positions: (n,), indices into the positions of all outputs, image by image, each image in
            row-major order; all are below ``count_positions``.
    """
    if not isinstance(layer, _ConvNd):
        return x.reshape(-1, x.shape[-1])[positions].unsqueeze(0)
    windows = _windows(x, layer)
    spatial = windows.shape[1 : 1 + len(layer.kernel_size)]
    rows = windows[torch.unravel_index(positions, (len(x), *spatial))]  # (n, *kernel, C)
    inputs = layer.in_channels // layer.groups
    return rows.reshape(len(rows), -1, layer.groups, inputs).permute(2, 0, 1, 3).flatten(2)


def output_rows(y: Tensor, layer: Layer, positions: Tensor) -> Tensor:
    """The values of an output, or of a wanted output, at the same positions: (G, n, O)."""
    channels = y.movedim(1, -1) if isinstance(layer, _ConvNd) else y
    flat = channels.reshape(-1, channels.shape[-1])[positions]
    return flat.reshape(len(flat), groups_of(layer), -1).transpose(0, 1)


def count_positions(y: Tensor, layer: Layer) -> int:
    """The number of positions of an output ``y``, over all images."""
    return y.numel() // y.shape[1 if isinstance(layer, _ConvNd) else -1]


def _windows(x: Tensor, layer: _ConvNd) -> Tensor:
    """A view (B, *outputs, *kernel, C) of the padded input."""
    stride: tuple[int, ...] = layer.stride
    if layer.transposed:
        x, stride = _spread(x, layer), (1,) * len(stride)
    elif any(_padding(layer)):
        mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
        x = F.pad(x, _padding(layer), mode=mode)
    # Channels last: the values of a position are then contiguous in a few long runs.
    x = x.movedim(1, -1).contiguous()
    sides = [
        (size - dilation * (kernel - 1) - 1) // step + 1
        for size, dilation, kernel, step in zip(
            x.shape[1:-1], layer.dilation, layer.kernel_size, stride, strict=True
        )
    ]
    first, *strides, last = x.stride()
    outer = [step * by for step, by in zip(stride, strides, strict=True)]
    inner = [dilation * by for dilation, by in zip(layer.dilation, strides, strict=True)]
    shape = (len(x), *sides, *layer.kernel_size, x.shape[-1])
    return x.as_strided(shape, (first, *outer, *inner, last))


def _padding(layer: _ConvNd) -> list[int]:
    """The padding in the order of ``F.pad``: last dimension first, left and right."""
    sides: list[int] = []
    for index, (kernel, dilation) in enumerate(zip(layer.kernel_size, layer.dilation, strict=True)):
        whole = dilation * (kernel - 1)
        if layer.padding == "same":
            left, right = whole // 2, whole - whole // 2
        elif layer.padding == "valid":
            left = right = 0
        else:
            left = right = cast(tuple[int, ...], layer.padding)[index]
        sides = [left, right, *sides]
    return sides


def _spread(x: Tensor, layer: _ConvNd) -> Tensor:
    """The input of a transposed convolution, with zeros between and around its values."""
    sides = [(size - 1) * step + 1 for size, step in zip(x.shape[2:], layer.stride, strict=True)]
    spread = x.new_zeros((*x.shape[:2], *sides))
    every = tuple(slice(None, None, step) for step in layer.stride)
    spread[(slice(None), slice(None), *every)] = x
    around: list[int] = []
    padding = cast(tuple[int, ...], layer.padding)
    extra = layer.output_padding
    for pad, more, kernel, dilation in zip(
        padding, extra, layer.kernel_size, layer.dilation, strict=True
    ):
        whole = dilation * (kernel - 1) - pad
        around = [whole, whole + more, *around]
    return F.pad(spread, around)


def kernel_size(layer: Layer) -> int:
    """The number of kernel positions, by which K counts each input channel."""
    return prod(layer.kernel_size) if isinstance(layer, _ConvNd) else 1
