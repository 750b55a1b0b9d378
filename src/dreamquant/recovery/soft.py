"""Rounding and scales that learn by gradients: AdaRound's soft bits, learned steps, QDrop."""

from __future__ import annotations

import torch
from torch import Tensor

from dreamquant.quantization.affine import fake_quantize
from dreamquant.quantization.quantizers import ActivationQuantizer
from dreamquant.quantization.student import QuantizedWeight

# h(v) = clip(1.2 sigmoid(v) - 0.1, 0, 1) reaches both ends at finite v (AdaRound, eq. 23).
_STRETCH, _SHIFT = 1.2, -0.1
# Largest distance, in steps, between a weight's present code and the start of its soft value.
_LEAN = 0.4


class SoftWeight:
    """A weight whose elements lie between two neighbouring levels each, with a learned scale.

    ``w = scale exp(growth) clamp(base + h(bits))``. The base stays fixed while the scale learns
    (GENIE, CVPR 2023, section 3.2). The start is the student's present code, moved toward the
    teacher's weight: after rounding to nearest this is AdaRound's start, and after any other
    rounding it keeps the codes of that rounding.

    Attributes:
        bits: the argument of ``h``, learned.
        growth: logarithm of the factor on each scale, learned.
    """

    def __init__(self, weight: QuantizedWeight, original: Tensor) -> None:
        self.weight = weight
        latent, quantizer = weight
        in_force = quantizer.in_force(latent.detach())
        self.held = tuple(each.detach().clone() for each in in_force)  # a step may be learned
        scale, zero_point = (quantizer.wide(each, latent) for each in self.held)
        self.scale, self.zero_point = scale, zero_point.to(scale.dtype)
        self.low = quantizer.grid.qmin - self.zero_point
        self.high = quantizer.grid.qmax - self.zero_point
        codes = torch.clamp((latent.detach() / scale).round(), self.low, self.high)
        exact = codes + (original / scale - codes).clamp(-_LEAN, _LEAN)
        self.base = exact.floor()
        start = ((exact - self.base - _SHIFT) / _STRETCH).clamp(1e-3, 1 - 1e-3)
        self.bits = start.logit().requires_grad_()
        self.growth = torch.zeros_like(self.held[0]).requires_grad_()

    def rounding(self) -> Tensor:
        """``h(bits)`` in [0, 1], shaped like the weight."""
        return torch.clamp(_STRETCH * torch.sigmoid(self.bits) + _SHIFT, 0, 1)

    def soft(self) -> Tensor:
        """The present weight, with soft bits."""
        return self._on(self.base + self.rounding())

    def penalty(self, exponent: float | Tensor) -> Tensor:
        """``sum(1 - |2 h - 1| ** exponent)``: zero when all bits are decided (AdaRound, eq. 24)."""
        return (1 - (2 * self.rounding() - 1).abs().pow(exponent)).sum()

    @torch.no_grad()
    def settle(self) -> None:
        """Write the rounded weight into the student, and fix its scale."""
        latent, quantizer = self.weight
        latent.copy_(self._on(self.base + (self.bits >= 0)))
        scale, zero_point = self.held
        quantizer.hold(scale * self.growth.exp(), zero_point)

    def _on(self, codes: Tensor) -> Tensor:
        latent, quantizer = self.weight
        stretch = quantizer.wide(self.growth.exp(), latent)
        return torch.clamp(codes, self.low, self.high) * (self.scale * stretch)


class SoftRange:
    """An activation quantizer with a learned scale, that skips random elements.

    Attributes:
        growth: logarithm of the factor on the scale, learned.
    """

    def __init__(self, quantizer: ActivationQuantizer) -> None:
        self.quantizer = quantizer
        self.scale, self.zero_point = quantizer.scale.detach().clone(), quantizer.zero_point.clone()
        self.growth = torch.zeros_like(self.scale).requires_grad_()

    def quantized(self, x: Tensor, drop: float, random: torch.Generator) -> Tensor:
        """``x`` on the grid, except for a random fraction of its elements (QDrop, ICLR 2022)."""
        scale = self.scale * self.growth.exp()
        grid = self.quantizer.grid
        rounded = fake_quantize(x, scale, self.zero_point, grid, clipped_gradient=True)
        return mixed(rounded, x, drop, random)

    def settle(self) -> None:
        """Give the quantizer the learned scale."""
        self.quantizer.place((self.scale * self.growth.exp()).detach(), self.zero_point)


def mixed(rounded: Tensor, exact: Tensor, drop: float, random: torch.Generator) -> Tensor:
    """``rounded`` with each element replaced by that of ``exact`` with probability ``drop``."""
    if not drop:
        return rounded
    draws = torch.rand(rounded.shape, generator=random, device=rounded.device)
    return torch.where(draws < drop, exact, rounded)
