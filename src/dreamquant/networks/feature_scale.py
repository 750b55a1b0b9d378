"""The scale of inputs that are not images, computed from the first batch norm."""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dreamquant.networks.probe import batch_norms
from dreamquant.networks.spec import InputSpec
from dreamquant.networks.taps import entering

_INPUTS, _VALUES = 64, 2**17  # number of inputs, fewer if they are large; at least 8
# Weight of the ridge, relative to the squared responses. The deviation of DS-CNN's first
# coefficient is 22.6; the result is 18.8, 14.2 and 6.3 with 0.001, 0.01 and 0.1. With a larger
# weight, other coefficients are closer to each other.
_RIDGE = 0.01
_LEAST = 0.1  # smallest deviation, so that no column becomes constant
_LINEAR = 1e-3  # relative difference of linear responses by float32 rounding


def with_scale(spec: InputSpec, module: nn.Module) -> tuple[InputSpec, tuple[str, ...]]:
    """The spec with the mean and deviation of each column of features, and a note for the user.

    Spectra and other features can have any scale, and it is not in the file. The first batch norm
    stores the means and variances of its inputs in training. If these are linear in the
    network's input, for example after a convolution, the means of the columns follow by least
    squares, and their variances by least squares with results of at least 0 (columns taken as
    independent). If there are more columns than the batch norm has channels, they share one
    mean and one variance.

    The spec does not change if the input is an image, if the scale is given, if no batch norm
    runs, or if its inputs are not linear in the network's input.

    Args:
        spec: input of the network.
        module: the network in eval mode, on the CPU.
    """
    norms = [norm for _, norm in batch_norms(module)]
    if not spec.features or spec.centre or not norms:
        return spec, ()
    first = _First(module, norms, spec)
    inputs = _drawn(spec)
    offset = first.values(torch.zeros(1, *spec.shape))
    if not _linear(first, inputs, offset):
        return spec, ()
    centre, spread = _solved(first, inputs, offset)
    scaled = replace(spec, centre=_rounded(centre), spread=_rounded(spread))
    return scaled, (
        "the features' scale is read from the first batch norm: "
        f"means {centre.min():.3g} to {centre.max():.3g}, "
        f"deviations {spread.min():.3g} to {spread.max():.3g}",
    )


class _ReachedError(Exception):
    """Ends a forward pass when the batch norm has its input."""


class _First:
    """Reads the input of the first batch norm that runs."""

    def __init__(self, module: nn.Module, norms: list[Any], spec: InputSpec) -> None:
        self.module, self.norms, self.spec = module, norms, spec
        self.norm: Any = None

    @torch.no_grad()
    def values(self, inputs: Tensor) -> Tensor:
        """Its input (B, C, *) for inputs of the network."""
        seen: list[Tensor] = []

        def look(norm: Any, given: tuple[Any, ...]) -> None:
            self.norm = norm
            seen.append(given[0].clone())
            raise _ReachedError

        with entering(self.norms, look), suppress(_ReachedError):
            self.module(inputs)
        return seen[0]


def _drawn(spec: InputSpec) -> Tensor:
    """Inputs (B, *shape) of deviation 1; half of the variance is constant along a column."""
    random = torch.Generator().manual_seed(0)
    count = max(8, min(_INPUTS, _VALUES // math.prod(spec.shape)))
    level = torch.randn(count, *(1,) * (len(spec.shape) - 1), spec.shape[-1], generator=random)
    return (level + torch.randn(count, *spec.shape, generator=random)) / 2**0.5


def _linear(first: _First, inputs: Tensor, offset: Tensor) -> bool:
    once, twice = (first.values(factor * inputs) - offset for factor in (1, 2))
    return bool((twice - 2 * once).norm() <= _LINEAR * twice.norm())


def _solved(first: _First, inputs: Tensor, offset: Tensor) -> tuple[Tensor, Tensor]:
    """The mean and deviation (W,) of each column."""
    width = inputs.shape[-1]
    masks = torch.eye(width) if width <= first.norm.num_features else torch.ones(1, width)
    lone = torch.zeros(1, *inputs.shape[1:])
    powers = torch.stack([_variance(first.values(inputs * mask) - offset) for mask in masks], 1)
    means = torch.stack([_mean(first.values(lone + mask) - offset) for mask in masks], 1)
    stored, deviation = first.norm.running_mean, first.norm.running_var.clamp(min=1e-12).sqrt()
    power = powers / deviation.square()[:, None]
    shift = (stored - _mean(offset)) / deviation
    from scipy.optimize import nnls  # a third of a second, which pictures need not spend

    variance = nnls(*_ridged(power, torch.ones(len(power))))[0]
    mean = np.linalg.lstsq(*_ridged(means / deviation[:, None], shift), rcond=None)[0]
    least = torch.from_numpy(variance).sqrt().clamp(min=_LEAST)
    return (torch.from_numpy(mean) @ masks.double(), least @ masks.double())


def _ridged(matrix: Tensor, wanted: Tensor) -> tuple[Any, Any]:
    """The equations with a ridge in proportion to the matrix."""
    columns = matrix.shape[1]
    ridge = (_RIDGE / columns) ** 0.5 * float(matrix.norm()) * torch.eye(columns)
    return (
        torch.cat([matrix, ridge]).double().numpy(),
        torch.cat([wanted, torch.zeros(columns)]).double().numpy(),
    )


def _mean(values: Tensor) -> Tensor:
    return values.transpose(0, 1).flatten(1).mean(1)


def _variance(values: Tensor) -> Tensor:
    return values.transpose(0, 1).flatten(1).var(1, correction=0)


def _rounded(values: Tensor) -> tuple[float, ...]:
    """Numbers with four digits, so that they are equal on all processors."""
    return tuple(float(f"{value:.4g}") for value in values.tolist())
