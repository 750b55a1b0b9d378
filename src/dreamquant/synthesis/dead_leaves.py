"""Dead leaves: opaque shapes that cover each other, a model of the structure of natural images.

Occlusion and a power law of sizes give natural images their edges and their spectrum (Lee, Mumford
and Huang, IJCV 2001); networks can even be trained on such images (Baradad et al., NeurIPS 2021).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from dreamquant.synthesis.pink_noise import PinkNoise
from dreamquant.synthesis.procedural import CHUNK, Kind, colours, uniform


@dataclass(frozen=True)
class DeadLeaves(Kind):
    """Ellipses and boxes of random radius, place, angle, colour and texture.

    Attributes:
        leaves: number of shapes in an image, at most 255.
        exponent: of the power law; the density of radii is proportional to ``r ** -exponent``.
        smallest: smallest radius, as a fraction of the shorter side.
        largest: largest radius, as a fraction of the shorter side.
        texture: amplitude of the sine wave on every leaf; the deviation of colours is about 1.
        clouds: deviation of the 1/f noise over the whole image.
        noise: deviation of the white noise on every pixel.
    """

    leaves: int = 60
    exponent: float = 2.0
    smallest: float = 0.05
    largest: float = 1.0
    texture: float = 0.6
    clouds: float = 0.3
    noise: float = 0.05

    def _chunk(self, shape: tuple[int, int, int], random: torch.Generator) -> Tensor:
        channels, height, width = shape
        top = self._topmost(height, width, random).long().view(CHUNK, 1, -1)
        palette = colours(CHUNK, self.leaves + 1, channels, random).transpose(1, 2)
        flat = palette.gather(2, top.expand(-1, channels, -1)).view(CHUNK, *shape)
        flat += self._texture(top, height, width, random)
        flat += self.clouds * PinkNoise().draw(CHUNK, shape, random)
        flat += self.noise * torch.randn(flat.shape, generator=random, device=random.device)
        return _softened(flat)

    def _topmost(self, height: int, width: int, random: torch.Generator) -> Tensor:
        """The index of the leaf on top of each pixel, uint8 (CHUNK, H, W); 0 is the background."""
        many = (self.leaves, CHUNK, 1, 1)
        # Large leaves are placed first: otherwise they would cover most of the small ones.
        radius = self._radii(min(height, width), random).sort(0, descending=True).values
        turned = uniform(0, math.pi, many, random)
        aspect = uniform(-0.7, 0.7, many, random).exp()
        rows = torch.arange(height, device=random.device)[:, None] - uniform(
            0, height, many, random
        )
        columns = torch.arange(width, device=random.device) - uniform(0, width, many, random)
        # Coordinates along the leaf's axes, in units of its radii: each is a part of the row plus a
        # part of the column.
        cosine, sine = turned.cos() / radius, turned.sin() / radius
        along = rows * (sine * aspect), columns * (cosine * aspect)
        across = rows * (cosine / aspect), columns * (-sine / aspect)
        top = torch.zeros(CHUNK, height, width, dtype=torch.uint8, device=random.device)
        for leaf in range(self.leaves):
            u = (along[0][leaf] + along[1][leaf]).abs_()
            v = (across[0][leaf] + across[1][leaf]).abs_()
            far = torch.maximum(u, v) if leaf % 2 else u.square_().add_(v.square_())
            top.masked_fill_(far < 1, leaf + 1)
        return top

    def _radii(self, side: int, random: torch.Generator) -> Tensor:
        """Radii (leaves, CHUNK, 1, 1) in pixels, by the inverse of the cumulative power law."""
        power = 1 - self.exponent
        low, high = (max(part * side, 0.5) ** power for part in (self.smallest, self.largest))
        return uniform(low, high, (self.leaves, CHUNK, 1, 1), random) ** (1 / power)

    def _texture(self, top: Tensor, height: int, width: int, random: torch.Generator) -> Tensor:
        """Sine waves (CHUNK, 1, H, W), one direction and length for each leaf."""
        many = (CHUNK, 1, self.leaves + 1)
        # Wavelengths from three pixels to the side of the image, uniform in their logarithm.
        longest = math.log(max(height, width, 4))
        angular = 2 * math.pi * (-uniform(math.log(3), longest, many, random)).exp()
        turned = uniform(0, 2 * math.pi, many, random)
        strength = self.texture * uniform(0, 2, many, random)

        def of_pixel(values: Tensor) -> Tensor:
            return values.gather(2, top).view(CHUNK, 1, height, width)

        rows = torch.arange(height, device=random.device)[:, None]
        columns = torch.arange(width, device=random.device)
        phase = of_pixel(angular * turned.cos()) * columns + of_pixel(angular * turned.sin()) * rows
        return of_pixel(strength) * phase.add_(of_pixel(turned * 7)).sin_()


def _softened(images: Tensor) -> Tensor:
    """Each pixel the mean of its neighbourhood of 3 x 3, as lenses and scaling leave photographs.

    Without it edges are sharper than any that networks were trained on: the batch-norm statistics
    of networks for 32-pixel images are then two to fifteen times as far from the stored ones.
    """
    return F.avg_pool2d(F.pad(images, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
