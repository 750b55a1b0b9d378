"""A Gaussian low-pass filter of images: SynQ (Kim et al., ICLR 2025)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class LowPass:
    """Multiplies each frequency by ``exp(-D² / (2 D₀²))``, D its distance from the zero frequency.

    Attributes:
        cutoff: D₀ as a fraction of the image's shorter side. The paper's default of 80 at 224
            pixels is 0.36; a fraction means the same for images of any size.
    """

    cutoff: float = 0.36

    def __call__(self, images: Tensor) -> Tensor:
        """The smoothed images, (B, C, H, W)."""
        height, width = images.shape[2:]
        reach = self.cutoff * min(height, width)
        down = torch.fft.fftfreq(height, 1 / height, device=images.device)
        right = torch.fft.rfftfreq(width, 1 / width, device=images.device)
        distance = down.square()[:, None] + right.square()
        spectrum = torch.fft.rfft2(images.float()) * torch.exp(-distance / (2 * reach**2))
        smooth: Tensor = torch.fft.irfft2(spectrum, s=(height, width))
        return smooth.to(images.dtype)
