"""Few kinds of texture: Laws' texture energy, as in TexQ (Chen et al., NeurIPS 2023).

Confirmed, from summaries and a re-implementation of parts: energies of Laws' 5 x 5 filters, of
which nine are dominant. The way they enter the loss is not public; the formula is ours.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from dreamquant.terms.contract import Step, Term

# Level, edge, spot, wave and ripple (Laws, 1980).
_VECTORS = (
    (1.0, 4.0, 6.0, 4.0, 1.0),
    (-1.0, -2.0, 0.0, 2.0, 1.0),
    (-1.0, 0.0, 2.0, 0.0, -1.0),
    (-1.0, 2.0, 0.0, -2.0, 1.0),
    (1.0, -4.0, 6.0, -4.0, 1.0),
)


def texture_energy(images: Tensor) -> Tensor:
    """Energy of each texture as a fraction of all, (B, 24), of images (B, C, H, W).

    A filter is the outer product of two vectors, of length 1; its energy is the mean absolute
    response to the mean over channels. Level by level, which is brightness, is left out.
    """
    vectors = F.normalize(images.new_tensor(_VECTORS))
    filters = (vectors[:, None, :, None] * vectors[None, :, None, :]).reshape(25, 1, 5, 5)[1:]
    grey = images.mean(1, keepdim=True)
    energy = F.conv2d(F.pad(grey, (2,) * 4, mode="replicate"), filters).abs().mean((2, 3))
    return energy / energy.sum(1, keepdim=True).clamp(min=1e-12)


@dataclass(frozen=True)
class TextureEnergy(Term):
    """``E[1 - Σ_{k dominant} e_k]``: the energy of an image lies in few kinds of texture.

    Noise has all kinds equally; a photograph has mostly smooth ones and edges.

    Attributes:
        dominant: number of an image's kinds of texture that count as dominant.
    """

    dominant: int = 9
    formula = "E[1 - Σ_{k dominant} e_k], e = Laws' texture energies"

    def __call__(self, step: Step) -> Tensor:
        """The fraction of energy in all other textures, a scalar in [0, 1]."""
        energy = texture_energy(step.images)
        return 1 - energy.topk(self.dominant, 1).values.sum(1).mean()
