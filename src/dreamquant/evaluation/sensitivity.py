"""Sensitivity: the change of the teacher's outputs when the weights of one layer are rounded."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dreamquant.evaluation.classes import Classification
from dreamquant.evaluation.task import Task
from dreamquant.quantization.quantizers import WeightQuantizer
from dreamquant.quantization.student import channel_layout

MEASURED_AT = 4  # bits; with fewer bits the divergence saturates, with more bits it is too small
_CLASSIFICATION = Classification()
_SCALE_BYTES = 5  # a scale and a zero-point for each channel


@dataclass(frozen=True)
class Sensitivity:
    """The cost of each number of bits for each layer: damage and bytes.

    Attributes:
        layers: names of layers, in the order of rows.
        bits: numbers of bits, in the order of columns.
        damage: change of the teacher's outputs if only this layer is rounded, see
            :meth:`dreamquant.evaluation.task.Task.damage`. For a classifier it is the
            Kullback-Leibler divergence in nats, mean over images.
        sizes: bytes of the layer's codes, scales and zero-points.
    """

    layers: tuple[str, ...]
    bits: tuple[int, ...]
    damage: NDArray[np.float64]
    sizes: NDArray[np.float64]


@torch.no_grad()
def sensitivity(
    network: nn.Module,
    layers: Sequence[str],
    bits: Sequence[int],
    images: Tensor,
    task: Task = _CLASSIFICATION,
) -> Sensitivity:
    """Round one layer at a time and measure the change of the outputs.

    The divergence (Cai et al., ZeroQ, CVPR 2020, section 3.3) is measured at four bits. For other
    bits it is scaled by the squared error of the weights, because it is a linear function of that
    error while both are small.

    Args:
        network: network in eval mode; it is not changed.
        layers: names of its layers to quantize.
        bits: numbers of bits of weights.
        images: normalised images (B, C, H, W).
        task: task of the network.
    """
    wanted = network(images)
    damage, sizes = [], []
    for name in layers:
        layer = network.get_submodule(name)
        weight = cast(Tensor, layer.weight)
        rounded = {each: rounded_weight(layer, each) for each in {*bits, MEASURED_AT}}
        errors = {each: float((weight - rounded[each]).square().sum()) for each in rounded}
        with _replaced(network, {name: rounded[MEASURED_AT]}):
            measured = task.damage(network(images), wanted)
        per_error = max(float(measured), 0.0) / max(errors[MEASURED_AT], 1e-30)
        axis, groups = channel_layout(layer)
        scales = _SCALE_BYTES * groups * weight.shape[axis]
        damage.append([per_error * errors[each] for each in bits])
        sizes.append([scales + weight.numel() * each / 8 for each in bits])
    return Sensitivity(tuple(layers), tuple(bits), np.array(damage), np.array(sizes))


@torch.no_grad()
def agreement_rounded(
    network: nn.Module, bits: Mapping[str, int], images: Tensor, task: Task = _CLASSIFICATION
) -> float:
    """Agreement in percent between a network with rounded weights and the same network in float.

    Args:
        network: network in eval mode; it is not changed.
        bits: bits of the weights of each layer, by name.
        images: normalised images (B, C, H, W).
        task: task of the network.
    """
    wanted = network(images)
    weights = {
        name: rounded_weight(network.get_submodule(name), each) for name, each in bits.items()
    }
    with _replaced(network, weights):
        return task.agreement(task.agree(network(images), wanted)).percent


def rounded_weight(layer: nn.Module, bits: int) -> Tensor:
    """A layer's weight, rounded with the grid of least squared error for each output channel."""
    weight = cast(Tensor, layer.weight).detach()
    axis, groups = channel_layout(layer)
    channels = groups * weight.shape[axis]
    return WeightQuantizer(bits, channels, axis, groups, learned=True).rounded(weight)


@contextmanager
def _replaced(network: nn.Module, weights: Mapping[str, Tensor]) -> Iterator[None]:
    """Replace weights inside the block."""
    held = {name: cast(nn.Parameter, network.get_submodule(name).weight) for name in weights}
    kept = {name: copy.deepcopy(weight.data) for name, weight in held.items()}
    try:
        for name, weight in weights.items():
            held[name].data.copy_(weight)
        yield
    finally:
        for name, weight in kept.items():
            held[name].data.copy_(weight)
