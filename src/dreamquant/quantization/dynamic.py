"""Activation ranges found anew for each image and channel (GranQ, ACM SAC 2026)."""

from __future__ import annotations

import torch
from torch import Tensor

from dreamquant.quantization.affine import affine_parameters, fake_quantize, quantize
from dreamquant.quantization.quantizers import ActivationQuantizer


class DynamicQuantizer(ActivationQuantizer):
    """Each channel of each image on a grid of its own smallest and largest value.

    Nothing is learned or frozen: ranges of static quantizers have no meaning here, and what would
    set them is without effect. Every range is found when the network runs, from all values.

    Args:
        bits: 2 to 8.
        clipped_gradient: without effect, for nothing is ever clamped.

    Attributes:
        scales: found for each image in the latest pass.
        values: of each image that they were found from.
    """

    def __init__(self, bits: int, *, clipped_gradient: bool, momentum: float) -> None:
        super().__init__(bits, learned=False, clipped_gradient=clipped_gradient, momentum=momentum)
        self.placed.fill_(True)
        self.scales = self.values = 0

    def forward(self, x: Tensor) -> Tensor:
        """``x`` (B, C, ...) on the grids, same shape; of (B, F), an image is one channel."""
        scale, zero_point = self._found(x)
        self.scales, self.values = scale[0].numel(), x[0].numel()
        return fake_quantize(x, scale, zero_point, self.grid, clipped_gradient=False)

    @torch.no_grad()
    def codes(self, x: Tensor) -> Tensor:
        """Integer codes of ``x``, int32."""
        return quantize(x, *self._found(x), self.grid)

    def observe(self, x: Tensor) -> None:
        """Nothing: no range is kept."""

    def on_grid(self, values: Tensor, given: Tensor) -> bool:
        """Whether all ``values`` (N,) are among those that it gave: its grids are many."""
        return bool(torch.isin(values, given).all())

    @torch.no_grad()
    def _found(self, x: Tensor) -> tuple[Tensor, Tensor]:
        axes = tuple(range(2, x.dim())) or (1,)
        return affine_parameters(x.amin(axes, True), x.amax(axes, True), self.grid)
