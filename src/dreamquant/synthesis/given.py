"""Images that are there already: a kept pool, or pictures of the user's without labels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal, Protocol

import torch
from torch import Tensor

from dreamquant.synthesis.pool import Pool
from dreamquant.synthesis.source import Source, seen_classes
from dreamquant.terms.contract import Terms
from dreamquant.training.bench import Bench
from dreamquant.training.losses import Losses
from dreamquant.training.phase import Phase

_AT_ONCE = 32


class Rows(Protocol):
    """Images on disk, read as they are asked for."""

    @property
    def targets(self) -> Tensor | None:
        """Labels (N,) or soft ones (N, classes) on record; ``None`` where there are none."""
        ...

    def __len__(self) -> int:
        """Number of images."""
        ...

    def read(self, rows: Sequence[int]) -> Tensor:
        """Images (B, C, H, W) of these rows, normalised, float32, on the CPU.

        Raises:
            DataError: one cannot be read; it is named.
        """
        ...


@dataclass(frozen=True)
class Given(Source):
    """Images that are there already; none is made and none is held in memory.

    Where no targets are on record, what the teacher sees in an image is its target.

    Attributes:
        kind: what holds them.
        name: as it was asked for.
        size: how many.
        sha256: of a pool's manifest, or of the names and sizes of picture files.
        rows: reads them.
        by: what made a pool; empty of pictures.
        teacher_sha256: weights of the network that it was made for, likewise.
        terms: none.
    """

    kind: Literal["pool", "pictures"]
    name: str
    size: int
    sha256: str
    rows: Rows = field(repr=False, compare=False)
    by: str = ""
    teacher_sha256: str = ""
    terms: Terms = ()

    @property
    def kept(self) -> int:
        """All of them."""
        return self.size

    def stretched(self, ratio: float) -> Given:
        """The same: reading takes no iterations."""
        return self

    def open(self, bench: Bench, updates: int) -> GivenPool:
        """A pool that reads them."""
        return GivenPool(self, bench)


class GivenPool(Pool):
    """A pool that reads its images from disk.

    Args:
        source: says where they are.
        bench: what the run works on.
    """

    called: ClassVar[str] = "given images"

    def __init__(self, source: Given, bench: Bench) -> None:
        super().__init__(bench, source.size)
        self.rows = source.rows
        if self.rows.targets is not None:
            self.targets = self.rows.targets.to(bench.device)

    def phases(self) -> Iterator[Phase]:
        """One phase in which the teacher looks at all images, where they have no targets."""
        if self.rows.targets is None:
            yield _Looking(self)

    def read(self, rows: Tensor) -> Tensor:
        """Images of these rows, from disk."""
        return self.rows.read(rows.tolist()).to(self.bench.device)

    def look(self, first: int, end: int) -> None:
        """Take what the teacher sees in these images as their targets."""
        images = self.rows.read(range(first, end)).to(self.bench.device)
        seen = seen_classes(self.bench, images)
        self.targets = torch.cat([self.targets.to(seen), seen])


class _Looking(Phase):
    name = "looking at given images"

    def __init__(self, pool: GivenPool) -> None:
        super().__init__()
        self.pool = pool
        self.total = -(-pool.size // _AT_ONCE)

    @torch.no_grad()
    def step(self) -> Losses:
        """Look at some of them; a file that cannot be read is found here, before anything else."""
        first = self.done * _AT_ONCE
        self.pool.look(first, min(first + _AT_ONCE, self.pool.size))
        return {}
