"""How much the teacher's answers suffer when one layer's weights are rounded."""

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

MEASURED_AT = 4  # bits; at fewer, answers saturate, and at more, there is too little to see
_CLASSIFICATION = Classification()
_SCALE_BYTES = 5  # a scale and a zero-point, each channel


@dataclass(frozen=True)
class Sensitivity:
    """What each layer's bits cost, in answers and in bytes.

    Attributes:
        layers: names, in the order of the rows.
        bits: in the order of the columns.
        damage: to the teacher's outputs with this layer alone rounded, see
            :meth:`dreamquant.evaluation.task.Task.damage`: of a classifier the Kullback-Leibler
            divergence in nats, mean over images.
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
    """Round one layer at a time and see what becomes of the answers.

    The divergence (Cai et al., ZeroQ, CVPR 2020, section 3.3) is measured at four bits and carried
    over to others in proportion to the squared error of the weights, of which it is a linear
    function while both are small.

    Args:
        network: in eval mode; left as it is.
        layers: names of its layers that are to be quantized.
        bits: of weights to compare.
        images: normalised (B, C, H, W).
        task: of the network.
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
    """Agreement in percent of a network with rounded weights and itself as before.

    Args:
        network: in eval mode; left as it is.
        bits: of the weights of each layer by name.
        images: normalised (B, C, H, W).
        task: of the network.
    """
    wanted = network(images)
    weights = {
        name: rounded_weight(network.get_submodule(name), each) for name, each in bits.items()
    }
    with _replaced(network, weights):
        return task.agreement(task.agree(network(images), wanted)).percent


def rounded_weight(layer: nn.Module, bits: int) -> Tensor:
    """A layer's weight on the grid per output channel that has the least squared error."""
    weight = cast(Tensor, layer.weight).detach()
    axis, groups = channel_layout(layer)
    channels = groups * weight.shape[axis]
    return WeightQuantizer(bits, channels, axis, groups, learned=True).rounded(weight)


@contextmanager
def _replaced(network: nn.Module, weights: Mapping[str, Tensor]) -> Iterator[None]:
    """Other weights for a while."""
    held = {name: cast(nn.Parameter, network.get_submodule(name).weight) for name in weights}
    kept = {name: copy.deepcopy(weight.data) for name, weight in held.items()}
    try:
        for name, weight in weights.items():
            held[name].data.copy_(weight)
        yield
    finally:
        for name, weight in kept.items():
            held[name].data.copy_(weight)
