"""Procedural images as a source: a pool that is drawn once, without any network."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from dreamquant.synthesis.pool import Pool
from dreamquant.synthesis.procedural import Kind, drawn_inputs
from dreamquant.synthesis.source import Source, seen_classes
from dreamquant.synthesis.suited import Suited
from dreamquant.terms.contract import Terms
from dreamquant.training.bench import Bench
from dreamquant.training.losses import Losses
from dreamquant.training.phase import Phase

_SUITED = Suited()
_AT_ONCE = 64


@dataclass(frozen=True)
class Procedural(Source):
    """A pool of procedural images; the target of an image is the class that the teacher gives it.

    Attributes:
        kind: the recipe of the images.
        size: number of images.
        terms: none, because no loss is minimised.
    """

    kind: Kind = _SUITED
    size: int = 256
    terms: Terms = ()

    @property
    def kept(self) -> int:
        """The number of images."""
        return self.size

    def stretched(self, ratio: float) -> Procedural:
        """The same: drawing takes no iterations."""
        return self

    def open(self, bench: Bench, updates: int) -> ProceduralPool:
        """An empty pool that its phase fills."""
        return ProceduralPool(self, bench)


class ProceduralPool(Pool):
    """A pool of procedural images.

    Args:
        source: the recipe and the number of images.
        bench: networks, random generators and device of the run.
    """

    def __init__(self, source: Procedural, bench: Bench) -> None:
        super().__init__(bench, source.size)
        self.kind = source.kind

    def phases(self) -> Iterator[Phase]:
        """One phase that draws all images."""
        yield _Drawing(self)


class _Drawing(Phase):
    name = "drawing procedural images"

    def __init__(self, pool: ProceduralPool) -> None:
        super().__init__()
        self.pool = pool
        self.total = -(-pool.size // _AT_ONCE)

    @torch.no_grad()
    def step(self) -> Losses:
        """Draw some of them."""
        pool, bench = self.pool, self.pool.bench
        count = min(_AT_ONCE, pool.size - self.done * _AT_ONCE)
        images = drawn_inputs(pool.kind, count, bench.input, bench.rng.random)
        pool.add(images, seen_classes(bench, images))
        return {}
