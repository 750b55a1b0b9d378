"""1/f noise: the spectrum of natural images without their edges."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from dreamquant.synthesis.procedural import CHUNK, Kind, uniform


@dataclass(frozen=True)
class PinkNoise(Kind):
    """Gaussian noise whose spectrum falls as ``1 / f ** a``; its channels are mixed at random.

    Attributes:
        lowest: smallest exponent ``a`` of the amplitude; each image draws its own.
        highest: largest exponent.
    """

    lowest: float = 0.8
    highest: float = 1.3

    def _chunk(self, shape: tuple[int, int, int], random: torch.Generator) -> Tensor:
        channels, height, width = shape
        white = torch.randn(CHUNK, *shape, generator=random, device=random.device)
        rows = torch.fft.fftfreq(height, device=random.device)[:, None]
        columns = torch.fft.rfftfreq(width, device=random.device)
        # The amplitude at frequency 0 would be infinite; it takes that of the longest wave.
        frequency = torch.hypot(rows, columns).clamp(min=1 / max(height, width))
        exponent = uniform(self.lowest, self.highest, (CHUNK, 1, 1, 1), random)
        spectrum = torch.fft.rfft2(white) * frequency**-exponent
        pink = torch.fft.irfft2(spectrum, s=(height, width))
        pink = pink / pink.std((1, 2, 3), keepdim=True).clamp(min=1e-6)
        return torch.einsum("bij,bjhw->bihw", self._mixing(channels, random), pink)

    def _mixing(self, channels: int, random: torch.Generator) -> Tensor:
        """Matrices (CHUNK, C, C) that correlate the channels, with a contrast for each image."""
        own = torch.eye(channels, device=random.device)
        shared = torch.ones(channels, channels, device=random.device) / math.sqrt(channels)
        spread = torch.randn(CHUNK, channels, channels, generator=random, device=random.device)
        contrast = uniform(-0.5, 0.5, (CHUNK, 1, 1), random).exp()
        return contrast * (0.3 * own + 0.8 * shared + 0.15 * spread)
