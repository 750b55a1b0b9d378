"""Noise images for the comparison of an exported file with its student."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from dreamquant.networks.spec import InputSpec

_SCALES = (1.0, 4.0)
_PIXELS = 2**19  # limit of all pixels of these images, so that memory stays small
_MOST_IMAGES = 32


def noise(spec: InputSpec) -> Tensor:
    """Normalised inputs (N, ...): coarse and fine noise, then the same multiplied by four."""
    channels, height, width = spec.plane
    count = max(4, min(_MOST_IMAGES, _PIXELS // (height * width)))
    generator = torch.Generator().manual_seed(0)
    patches = torch.randn(count, channels, -(-height // 4), -(-width // 4), generator=generator)
    grain = torch.randn(count, *spec.plane, generator=generator)
    images = F.interpolate(patches, (height, width), mode="bilinear") * 1.5 + grain * 0.5
    both = torch.cat([images * scale for scale in _SCALES])
    return both.reshape(-1, *spec.shape)
