"""Heat maps: inputs with one channel that are not pictures are drawn in colours."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from dreamquant.networks.pixels import denormalise
from dreamquant.networks.spec import InputSpec

# From dark blue over red to yellow, in equal steps of brightness.
_COLOURS = ((0.05, 0.03, 0.30), (0.49, 0.05, 0.66), (0.80, 0.28, 0.47), (0.97, 0.58, 0.25))
_BRIGHTEST = (0.94, 0.98, 0.13)
_FEW = 0.1  # largest fraction of values outside the range of pixels that a picture may have


def as_shown(images: Tensor, spec: InputSpec) -> tuple[Tensor, InputSpec]:
    """Images (N, C, H, W) for display, and their spec.

    If images with one channel have many values outside the range of pixels, such as features of
    sound, they are drawn in colours from the smallest to the largest value of each image. Other
    images do not change.
    """
    if images.shape[1] != 1:
        return images, spec
    pixels = denormalise(images.float().cpu(), spec)
    if ((pixels < 0) | (pixels > 1)).float().mean() <= _FEW:
        return images, spec
    shown = replace(spec, shape=(3, *images.shape[2:]), mean=(0.0,) * 3, std=(1.0,) * 3)
    return heat(pixels), shown


def heat(values: Tensor) -> Tensor:
    """Colours (N, 3, H, W) in [0, 1] for values (N, 1, H, W), scaled to the range of each image."""
    flat = values.flatten(1)
    low, high = flat.amin(1), flat.amax(1)
    unit = (flat - low[:, None]) / (high - low).clamp(min=1e-12)[:, None]
    colours = torch.tensor((*_COLOURS, _BRIGHTEST))
    place = unit * (len(colours) - 1)
    below = place.floor().long().clamp(max=len(colours) - 2)
    mixed = torch.lerp(colours[below], colours[below + 1], (place - below)[..., None])
    return mixed.movedim(2, 1).reshape(len(values), 3, *values.shape[2:])
