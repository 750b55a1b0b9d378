"""Between pixels and what a network takes."""

from __future__ import annotations

import torch
from torch import Tensor

from dreamquant.networks.spec import InputSpec


def normalise(pixels: Tensor, spec: InputSpec) -> Tensor:
    """Whole numbers 0 to 255 (B, C, H, W) as the network takes them, float32."""
    mean, std = _per_channel(spec)
    return pixels.float().div_(255).sub_(mean).div_(std)


def standardise(features: Tensor, spec: InputSpec) -> Tensor:
    """Features (B, ...) that are no pixels as the network takes them, float32."""
    mean, std = _per_channel(spec)
    return (features.float() - mean) / std


def denormalise(images: Tensor, spec: InputSpec) -> Tensor:
    """Normalised images (B, C, H, W), on the CPU, in units of the brightest pixel: 0 to 1."""
    mean, std = _per_channel(spec)
    return images * std + mean


def _per_channel(spec: InputSpec) -> tuple[Tensor, Tensor]:
    sides = (-1, *[1] * (len(spec.shape) - 1))
    return torch.tensor(spec.mean).view(sides), torch.tensor(spec.std).view(sides)
