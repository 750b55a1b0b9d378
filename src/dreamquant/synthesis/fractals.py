"""Fractals: the attractors of random iterated function systems (Kataoka et al., ACCV 2020).

Maps are drawn by their singular values (Anderson and Farrell, WACV 2022), which are all below 1, so
that every system contracts and none has to be rejected. Points are spread over the whole image.
Each map has a colour, and the colour of a point is the running mean of the colours of its maps.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from dreamquant.synthesis.pink_noise import PinkNoise
from dreamquant.synthesis.procedural import CHUNK, Kind, colours, uniform

_FORGET = 20  # number of steps after which a point lies on the attractor


@dataclass(frozen=True)
class Fractals(Kind):
    """Iterated function systems, drawn over 1/f noise.

    Attributes:
        maps: number of affine maps of each system.
        density: number of points for each pixel.
        ground: deviation of the 1/f noise behind the fractal; the deviation of colours is about 1.
    """

    maps: int = 4
    density: float = 4.0
    ground: float = 0.5

    def _chunk(self, shape: tuple[int, int, int], random: torch.Generator) -> Tensor:
        channels, height, width = shape
        palette = colours(CHUNK, self.maps + 1, channels, random)
        ground = PinkNoise().draw(CHUNK, shape, random) * self.ground
        ground += palette[:, -1, :, None, None]
        sums = self._splat(palette[:, :-1], height, width, random)
        hits = sums[:, -1:]
        cover = hits / (hits + 1)
        return cover * sums[:, :-1] / hits.clamp(min=1) + (1 - cover) * ground

    def _splat(self, palette: Tensor, height: int, width: int, random: torch.Generator) -> Tensor:
        """Sums of colours and the number of points (CHUNK, C + 1, H, W)."""
        steps = 30
        walkers = max(int(self.density * height * width) // steps, 1)
        matrix, offset, likely = self._systems(random)
        channels = palette.shape[2]
        place = torch.zeros(CHUNK, walkers, 2, device=random.device)
        colour = torch.zeros(CHUNK, walkers, channels, device=random.device)
        places, painted = [], []
        for step in range(_FORGET + steps):
            chosen = likely.multinomial(walkers, replacement=True, generator=random)[..., None]
            place = _moved(place, matrix, offset, chosen)
            colour = (colour + palette.gather(1, chosen.expand(-1, -1, channels))) / 2
            if step >= _FORGET:
                places.append(place)
                painted.append(colour)
        cells = _cells(torch.cat(places, 1), height, width)
        drawn = torch.cat(painted, 1)
        drawn = torch.cat([drawn, torch.ones_like(drawn[..., :1])], 2).transpose(1, 2)
        sums = drawn.new_zeros(CHUNK, channels + 1, height * width)
        sums.scatter_add_(2, cells[:, None].expand_as(drawn), drawn)
        return sums.view(CHUNK, channels + 1, height, width)

    def _systems(self, random: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Matrices (CHUNK, maps, 4), offsets (CHUNK, maps, 2), probabilities (CHUNK, maps)."""
        many = (CHUNK, self.maps)
        first, second = (_rotation(uniform(0, 2 * math.pi, many, random)) for _ in range(2))
        size = uniform(0.3, 0.85, (*many, 2), random)
        mirrored = torch.sign(uniform(-1, 1, (*many, 2), random))
        matrix = (first * (size * mirrored)[..., None, :]) @ second
        return matrix.flatten(2), uniform(-1, 1, (*many, 2), random), size.prod(2)


def _rotation(angle: Tensor) -> Tensor:
    cosine, sine = angle.cos(), angle.sin()
    return torch.stack([cosine, -sine, sine, cosine], -1).view(*angle.shape, 2, 2)


def _moved(place: Tensor, matrix: Tensor, offset: Tensor, chosen: Tensor) -> Tensor:
    """Every point (CHUNK, walkers, 2) moved by its chosen map (CHUNK, walkers, 1)."""
    x, y = place.unbind(2)
    a, b, c, d = matrix.gather(1, chosen.expand(-1, -1, 4)).unbind(2)
    moved = torch.stack([a * x + b * y, c * x + d * y], 2)
    return moved + offset.gather(1, chosen.expand(-1, -1, 2))


def _cells(places: Tensor, height: int, width: int) -> Tensor:
    """The pixel of each point (CHUNK, points, 2); each attractor is scaled to fill its image."""
    low, high = places.amin(1, keepdim=True), places.amax(1, keepdim=True)
    part = (places - low) / (high - low).clamp(min=1e-6)
    row = (part[..., 0] * height).long().clamp(max=height - 1)
    column = (part[..., 1] * width).long().clamp(max=width - 1)
    return row * width + column
