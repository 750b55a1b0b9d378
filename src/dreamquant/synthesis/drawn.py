"""Procedural images as a source: drawn once, kept, and known to no network."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from dreamquant.synthesis.dead_leaves import DeadLeaves
from dreamquant.synthesis.pool import Pool
from dreamquant.synthesis.procedural import Kind, drawn_inputs
from dreamquant.synthesis.source import Source, seen_classes
from dreamquant.terms.contract import Terms
from dreamquant.training.bench import Bench
from dreamquant.training.losses import Losses
from dreamquant.training.phase import Phase

_LEAVES = DeadLeaves()
_AT_ONCE = 64


@dataclass(frozen=True)
class Procedural(Source):
    """A pool of procedural images; what the teacher sees in each of them is its target.

    Attributes:
        kind: of images.
        size: how many.
        terms: none: no network has a say.
    """

    kind: Kind = _LEAVES
    size: int = 256
    terms: Terms = ()

    @property
    def kept(self) -> int:
        """All of them."""
        return self.size

    def stretched(self, ratio: float) -> Procedural:
        """The same: drawing takes no iterations."""
        return self

    def open(self, bench: Bench, updates: int) -> ProceduralPool:
        """A pool that its phase fills."""
        return ProceduralPool(self, bench)


class ProceduralPool(Pool):
    """A pool of procedural images.

    Args:
        source: its numbers.
        bench: what the run works on.
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
