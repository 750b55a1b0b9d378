"""Converts pixels to the normalised input of a network, and back."""

from __future__ import annotations

import torch
from torch import Tensor

from dreamquant.networks.spec import InputSpec

# From dark to bright in steps that look equal, also to people with red-green colour blindness.
_HEAT = ((20, 24, 60), (48, 72, 140), (60, 132, 150), (140, 186, 120), (250, 230, 90))


def normalise(pixels: Tensor, spec: InputSpec) -> Tensor:
    """Convert pixels 0 to 255 (B, C, H, W), red first, to the network's input, float32."""
    mean, std = _per_channel(spec)
    return in_order(pixels, spec).float().div_(255).sub_(mean).div_(std)


def in_order(images: Tensor, spec: InputSpec) -> Tensor:
    """Change images (B, C, H, W) from red first to the network's order of channels, or back."""
    return images.flip(1) if spec.bgr else images


class FeatureScale:
    """The scale that features have in training, see :attr:`InputSpec.centre`; images have none.

    Args:
        spec: input of the network.
        device: of the features.
    """

    def __init__(self, spec: InputSpec, device: torch.device) -> None:
        self.known = bool(spec.centre)
        self.centre = torch.tensor(spec.centre or 0.0, device=device)
        self.spread = torch.tensor(spec.spread or 1.0, device=device)

    def given(self, unit: Tensor) -> Tensor:
        """Inputs (B, ...) from features of mean 0 and deviation 1."""
        return unit * self.spread + self.centre if self.known else unit

    def removed(self, inputs: Tensor) -> Tensor:
        """The inverse of :meth:`given`."""
        return (inputs - self.centre) / self.spread


def standardise(features: Tensor, spec: InputSpec) -> Tensor:
    """Normalise features (B, ...), which are not pixels, for the network, float32."""
    mean, std = _per_channel(spec)
    return (features.float() - mean) / std


def denormalise(images: Tensor, spec: InputSpec) -> Tensor:
    """Convert normalised images (B, C, H, W) to pixels from 0 to 1, red first, on the CPU."""
    mean, std = _per_channel(spec)
    return in_order(images * std + mean, spec)


def heat_map(features: Tensor) -> Tensor:
    """Draw features (N, ...) as uint8 (N, H, W, 3): the smallest value dark, the largest bright."""
    rows = features[:, None] if features.dim() == 2 else features.flatten(1, -2)
    low, high = rows.amin((1, 2), keepdim=True), rows.amax((1, 2), keepdim=True)
    places = (rows - low) / (high - low).clamp(min=1e-12) * (len(_HEAT) - 1)
    below = places.long().clamp(max=len(_HEAT) - 2)
    colours = torch.tensor(_HEAT, dtype=torch.float32)
    part = (places - below)[..., None]
    mixed = colours[below] * (1 - part) + colours[below + 1] * part
    return mixed.round().to(torch.uint8)


def _per_channel(spec: InputSpec) -> tuple[Tensor, Tensor]:
    sides = (-1, *[1] * (len(spec.shape) - 1))
    return torch.tensor(spec.mean).view(sides), torch.tensor(spec.std).view(sides)
