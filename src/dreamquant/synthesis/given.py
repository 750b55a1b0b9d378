"""Images that already exist: a stored pool, or the user's own pictures without labels."""

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
    """Images on disk, which are read when they are needed."""

    @property
    def targets(self) -> Tensor | None:
        """Stored labels (N,) or soft targets (N, classes); ``None`` if the images have neither."""
        ...

    def __len__(self) -> int:
        """Number of images."""
        ...

    def read(self, rows: Sequence[int]) -> Tensor:
        """Images (B, C, H, W) of these rows, normalised, float32, on the CPU.

        Raises:
            DataError: an image cannot be read; the error names it.
        """
        ...


@dataclass(frozen=True)
class Given(Source):
    """Images that already exist; none is made, and they stay on disk.

    Where no targets are stored, the target of an image is the class that the teacher gives it.

    Attributes:
        kind: what holds the images: a pool, a folder, an archive.
        name: the name that the user gave.
        size: number of images.
        sha256: of a pool's manifest, or of the names and sizes of picture files.
        rows: reads the images.
        by: the method that made a pool; empty for pictures.
        teacher_sha256: hash of the weights of the network that a pool was made for; empty for
            pictures.
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
        """The number of images."""
        return self.size

    def stretched(self, ratio: float) -> Given:
        """The same: reading takes no iterations."""
        return self

    def open(self, bench: Bench, updates: int) -> GivenPool:
        """A pool that reads the images."""
        return GivenPool(self, bench)


class GivenPool(Pool):
    """A pool that reads its images from disk.

    Args:
        source: the images on disk.
        bench: networks, random generators and device of the run.
    """

    called: ClassVar[str] = "given images"

    def __init__(self, source: Given, bench: Bench) -> None:
        super().__init__(bench, source.size)
        self.rows = source.rows
        if self.rows.targets is not None:
            self.targets = self.rows.targets.to(bench.device)

    def phases(self) -> Iterator[Phase]:
        """One phase in which the teacher classifies all images, where no targets are stored."""
        if self.rows.targets is None:
            yield _Looking(self)

    def read(self, rows: Tensor) -> Tensor:
        """Images of these rows, from disk."""
        return self.rows.read(rows.tolist()).to(self.bench.device)

    def look(self, first: int, end: int) -> None:
        """Use the teacher's classes of these images as their targets."""
        images = self.rows.read(range(first, end)).to(self.bench.device)
        seen = seen_classes(self.bench, images)
        self.targets = torch.cat([self.targets.to(seen), seen])


class _Looking(Phase):
    name = "classifying given images"

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
