"""Powers of two for outputs of softmax: most of them are small, and all lie in [0, 1]."""

from __future__ import annotations

import torch
from torch import Tensor

from dreamquant import distributed
from dreamquant.quantization.affine import SMALLEST_SCALE
from dreamquant.quantization.quantizers import ActivationQuantizer


class LogQuantizer(ActivationQuantizer):
    """Values in ``[0, scale]`` on ``scale * 2**-code`` (Lin et al., FQ-ViT, IJCAI 2022, log2).

    Nothing becomes zero: the smallest value is ``scale * 2**-(2**bits - 1)``. Arguments and
    attributes are those of :class:`ActivationQuantizer`; the gradient to the values is straight
    through, and to a learned scale that of the product above.
    """

    def forward(self, x: Tensor) -> Tensor:
        """``x``, of values from 0, on the grid, same shape."""
        if self.observing:
            self.observe(x)
        rounded = self.scale * torch.exp2(-self.codes(x).to(x.dtype))
        # As a difference: a sum is what modes look for, and this one is none of the network's.
        return rounded - (x.detach() - x)

    @torch.no_grad()
    def codes(self, x: Tensor) -> Tensor:
        """Integer codes of ``x``, int32."""
        exponents = -torch.log2((x / self.scale).clamp(min=SMALLEST_SCALE))
        return exponents.round().clamp(self.grid.qmin, self.grid.qmax).to(torch.int32)

    def shifted(self, rounded: Tensor, steps: Tensor) -> Tensor:
        """The values of the codes that are ``steps`` above those of ``rounded``; same shape."""
        return torch.ldexp(rounded, -steps)

    @torch.no_grad()
    def observe(self, x: Tensor) -> None:
        """Let the range follow one batch; the scale is its upper end."""
        self.range.update(x)
        _, high = self.range.read()
        self.place(high.clamp(min=SMALLEST_SCALE), torch.zeros_like(self.zero_point))

    @torch.no_grad()
    def cover(self, values: list[Tensor]) -> None:
        """Set the range to end at the largest of all values."""
        high = distributed.largest(torch.stack([x.max() for x in values]).amax())
        self.place(high.clamp(min=SMALLEST_SCALE), torch.zeros_like(self.zero_point))
