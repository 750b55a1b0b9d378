"""Procedural images: computed from random numbers by a recipe, without any network.

A recipe draws images of any size with any number of channels; :func:`procedural` gives them the
mean and the deviation of the network's input. Networks respond to the statistics of natural images
(1/f spectra, occlusion edges, correlated channels) much more than to those of noise. These images
therefore serve for calibration, and as a start for optimised images.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from dreamquant.networks.spec import InputSpec

# Mean and deviation of photographs' pixels in [0, 1]; ImageNet and CIFAR have nearly the same.
_PIXEL_MEAN, _PIXEL_DEVIATION = 0.46, 0.24
# Number of images whose parameters are drawn at a time; it limits the memory.
CHUNK = 8


class Moments(NamedTuple):
    """The statistics that images are matched to, in the units of the network's input.

    They are of shapes that broadcast to an image (C, H, W).

    Attributes:
        mean: the mean.
        deviation: the deviation, positive.
        low: the smallest value of an input.
        high: the largest value of an input.
    """

    mean: Tensor
    deviation: Tensor
    low: Tensor
    high: Tensor


def pixel_moments(spec: InputSpec) -> Moments:
    """Moments and range of photographs in the units of the network's input.

    They follow from the spec's mean and deviation. They also hold where these are not statistics of
    data, as in ``pixel / 127.5 - 1``, or where the network takes raw pixels.
    """
    mean, std = torch.tensor(spec.mean), torch.tensor(spec.std)
    return Moments(
        (_PIXEL_MEAN - mean) / std, _PIXEL_DEVIATION / std, -mean / std, (1 - mean) / std
    )


def input_moments(spec: InputSpec) -> Moments:
    """Moments and range of a network's inputs, of shapes that broadcast to :attr:`InputSpec.plane`.

    Inputs that are not pixels have the mean and deviation of the spec in each column, and no range.
    """
    if not spec.features:
        return Moments(*(values[:, None, None] for values in pixel_moments(spec)))
    mean, deviation = torch.tensor(spec.centre or (0.0,)), torch.tensor(spec.spread or (1.0,))
    end = torch.tensor(math.inf)
    return Moments(mean, deviation, -end, end)


class Kind(ABC):
    """A recipe: a frozen dataclass of numbers, with a method that draws images."""

    def draw(self, count: int, shape: tuple[int, int, int], random: torch.Generator) -> Tensor:
        """Images (count, C, H, W), float32, whose mean and deviation are not yet matched.

        The first images are the same for every ``count``.

        Args:
            count: number of images.
            shape: channels, height, width.
            random: random generator; the images are on its device.
        """
        chunks = [self._chunk(shape, random) for _ in range(-(-count // CHUNK))]
        return torch.cat(chunks)[:count]

    def for_input(self, spec: InputSpec) -> Kind:
        """The recipe for a network's input: most are the same for all."""
        return self

    @abstractmethod
    def _chunk(self, shape: tuple[int, int, int], random: torch.Generator) -> Tensor:
        """``CHUNK`` images (CHUNK, C, H, W)."""


@dataclass(frozen=True)
class WhiteNoise(Kind):
    """Independent Gaussian values, the usual start of optimised images."""

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

    Mean and deviation are matched for each channel over all images together, so images keep their
    differences in brightness and contrast. Values outside the input's range are then clamped.

    Args:
        kind: the recipe.
        count: number of images, at least 1.
        shape: channels, height, width.
        moments: of the network's input, see :func:`input_moments`.
        random: random generator.
    """
    return matched(kind.draw(count, shape, random), moments)


def drawn_inputs(kind: Kind, count: int, spec: InputSpec, random: torch.Generator) -> Tensor:
    """``count`` inputs (count, ...) of a network with an input of any rank.

    Args:
        kind: the recipe.
        count: number of inputs.
        spec: of the network's input.
        random: random generator.
    """
    recipe = kind.for_input(spec)
    images = procedural(recipe, count, spec.plane, input_moments(spec), random)
    return images.reshape(count, *spec.shape)


def matched(images: Tensor, moments: Moments) -> Tensor:
    """``images`` (B, C, H, W), shifted and scaled to the moments per channel, and clamped."""
    mean, deviation, low, high = (values.to(images.device) for values in moments)
    spread, centre = torch.std_mean(images, (0, 2, 3), correction=0, keepdim=True)
    unit = (images - centre) / spread.clamp(min=1e-6)
    return torch.clamp(unit * deviation + mean, low, high)


def uniform(low: float, high: float, shape: tuple[int, ...], random: torch.Generator) -> Tensor:
    """Uniform values in [low, high) of the given shape, on the device of ``random``."""
    return low + (high - low) * torch.rand(shape, generator=random, device=random.device)


def colours(images: int, many: int, channels: int, random: torch.Generator) -> Tensor:
    """Colours (images, many, channels) around a base colour of each image.

    Natural colours vary together, so brightness varies more than hue. Each image has its own
    contrast.
    """

    def drawn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=random, device=random.device)

    base = drawn(images, 1, 1) + 0.4 * drawn(images, 1, channels)
    contrast = (0.6 * drawn(images, 1, 1)).exp()
    return 0.5 * base + contrast * (drawn(images, many, 1) + 0.4 * drawn(images, many, channels))
