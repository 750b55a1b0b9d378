"""Procedural images: drawn by a recipe from random numbers, without any network.

A kind draws images of any number of channels and any size; :func:`procedural` gives them the mean
and the deviation of the network's input. Networks respond to the statistics of natural images
(1/f spectra, occlusion edges, correlated channels) far more than to those of noise, so these are
images to calibrate on by themselves and a start for images that are optimised.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from dreamquant.networks.spec import InputSpec

# Pixels of photographs in [0, 1]: mean and deviation over ImageNet and CIFAR alike.
_PIXEL_MEAN, _PIXEL_DEVIATION = 0.46, 0.24
# Parameters are drawn for this many images at a time, which bounds the memory.
CHUNK = 8


class Moments(NamedTuple):
    """What images are matched to, in the units that the network takes.

    Attributes:
        mean: (C,).
        deviation: (C,), positive.
        low: (C,) the least value that an input can have.
        high: (C,) the largest.
    """

    mean: Tensor
    deviation: Tensor
    low: Tensor
    high: Tensor


def pixel_moments(spec: InputSpec) -> Moments:
    """Moments and range of photographs as the network takes them.

    They follow from the spec's mean and deviation and hold also where these are not those of data,
    as in ``pixel / 127.5 - 1`` or where the network takes raw pixels.
    """
    mean, std = torch.tensor(spec.mean), torch.tensor(spec.std)
    return Moments(
        (_PIXEL_MEAN - mean) / std, _PIXEL_DEVIATION / std, -mean / std, (1 - mean) / std
    )


def input_moments(spec: InputSpec) -> Moments:
    """Moments and range of a network's inputs, for each channel of :attr:`InputSpec.plane`.

    Features that are no pixels have mean 0 and deviation 1, once normalised, and no range.
    """
    if not spec.features:
        return pixel_moments(spec)
    ones = torch.ones(spec.plane[0])
    return Moments(0 * ones, ones, -math.inf * ones, math.inf * ones)


class Kind(ABC):
    """A recipe: a frozen dataclass of numbers that draws images."""

    def draw(self, count: int, shape: tuple[int, int, int], random: torch.Generator) -> Tensor:
        """Images (count, C, H, W), float32, of no particular mean and deviation.

        The first images are the same whatever ``count`` is.

        Args:
            count: how many.
            shape: channels, height, width.
            random: where random numbers come from; the images are on its device.
        """
        chunks = [self._chunk(shape, random) for _ in range(-(-count // CHUNK))]
        return torch.cat(chunks)[:count]

    @abstractmethod
    def _chunk(self, shape: tuple[int, int, int], random: torch.Generator) -> Tensor:
        """``CHUNK`` images (CHUNK, C, H, W)."""


@dataclass(frozen=True)
class WhiteNoise(Kind):
    """Independent Gaussian values: the usual start of optimised images."""

    def _chunk(self, shape: tuple[int, int, int], random: torch.Generator) -> Tensor:
        return torch.randn(CHUNK, *shape, generator=random, device=random.device)


def procedural(
    kind: Kind,
    count: int,
    shape: tuple[int, int, int],
    moments: Moments,
    random: torch.Generator,
) -> Tensor:
    """Images (count, C, H, W) of the given moments, float32, on the device of ``random``.

    Mean and deviation are matched per channel over all of them, so images keep their differences
    in brightness and contrast; values beyond the input's range are then clamped.

    Args:
        kind: the recipe.
        count: how many, at least 1.
        shape: channels, height, width.
        moments: of the network's input, see :func:`pixel_moments`.
        random: where random numbers come from.
    """
    return matched(kind.draw(count, shape, random), moments)


def drawn_inputs(kind: Kind, count: int, spec: InputSpec, random: torch.Generator) -> Tensor:
    """``count`` inputs (count, ...) of a network, of whatever rank, drawn by a kind.

    Args:
        kind: that draws them.
        count: how many.
        spec: of the network.
        random: where random numbers come from.
    """
    images = procedural(kind, count, spec.plane, input_moments(spec), random)
    return images.reshape(count, *spec.shape)


def matched(images: Tensor, moments: Moments) -> Tensor:
    """``images`` (B, C, H, W) moved and scaled per channel to the moments, clamped to the range."""
    mean, deviation, low, high = (values.to(images.device)[:, None, None] for values in moments)
    spread, centre = torch.std_mean(images, (0, 2, 3), correction=0, keepdim=True)
    unit = (images - centre) / spread.clamp(min=1e-6)
    return torch.clamp(unit * deviation + mean, low, high)


def uniform(low: float, high: float, shape: tuple[int, ...], random: torch.Generator) -> Tensor:
    """Values of ``shape`` uniform in [low, high), on the device of ``random``."""
    return low + (high - low) * torch.rand(shape, generator=random, device=random.device)


def colours(images: int, many: int, channels: int, random: torch.Generator) -> Tensor:
    """Colours (images, many, channels) around a base colour of each image.

    Natural colours vary together, so brightness deviates more than hue; each image has a contrast.
    """

    def drawn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=random, device=random.device)

    base = drawn(images, 1, 1) + 0.4 * drawn(images, 1, channels)
    contrast = (0.6 * drawn(images, 1, 1)).exp()
    return 0.5 * base + contrast * (drawn(images, many, 1) + 0.4 * drawn(images, many, channels))
