"""Probe images: fixed, named sets that no method uses and no student learns from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from dreamquant.networks.spec import InputSpec
from dreamquant.synthesis.dead_leaves import DeadLeaves
from dreamquant.synthesis.fractals import Fractals
from dreamquant.synthesis.procedural import CHUNK, Kind, drawn_inputs
from dreamquant.synthesis.source import Images, seen_classes
from dreamquant.training.batch import Batch, Request
from dreamquant.training.bench import Bench

COUNT = 512
NAME = f"{COUNT} probe images (dead leaves)"
_SEED = 20_000_003  # seed of the whole set, the same for every run and method

MEASURED: tuple[Kind, ...] = (DeadLeaves(),)
# Stages are judged on a kind of images that none of them learns from.
JUDGED: tuple[Kind, ...] = (Fractals(),)


def drawn(spec: InputSpec, block: int, kinds: Sequence[Kind] = MEASURED) -> Tensor:
    """``CHUNK`` images (B, C, H, W) of the set, on the CPU, because a GPU would draw other ones.

    Args:
        spec: the network's input.
        block: number of the chunk.
        kinds: kinds of images, which take turns.
    """
    random = torch.Generator().manual_seed(_SEED + block)
    return drawn_inputs(kinds[block % len(kinds)], CHUNK, spec, random)


class ProbeImages(Images):
    """Images with the mean and deviation of the network's input, drawn when they are needed.

    Agreement is measured on dead leaves where the user gives no images. Students are ranked on
    other kinds. A method's own images are never used for that: they could favour its own student.

    Args:
        bench: what the run works on.
        kinds: kinds of images, which take turns.
    """

    def __init__(self, bench: Bench, kinds: tuple[Kind, ...] = MEASURED) -> None:
        super().__init__(bench)
        self._kinds = kinds
        self._next = 0
        self._drawn: tuple[int, Tensor] = (-1, torch.empty(0))

    def batches(self, count: int, size: int) -> Iterator[Tensor]:
        """The first images of the set (B, C, H, W), independent of earlier draws.

        Args:
            count: number of images, at most ``COUNT``.
            size: images of a batch.
        """
        for start in range(0, count, size):
            rows = range(start, min(start + size, count))
            yield torch.stack([self._image(row) for row in rows])

    def ask(self, size: int, random: torch.Generator, targets: Tensor | None = None) -> Request:
        """The next images of the set, with the classes that the teacher gives them as targets."""
        rows = torch.arange(self._next, self._next + size) % COUNT
        self._next = (self._next + size) % COUNT
        return Request(torch.zeros_like(rows), rows)

    def make(self, request: Request) -> Batch:
        """The images of these rows."""
        images = self.rows(request.latent)
        return Batch(images, seen_classes(self.bench, images), request.latent)

    def rows(self, rows: Tensor) -> Tensor:
        """Images (B, C, H, W) of rows (B,) of the set."""
        return torch.stack([self._image(row) for row in rows.tolist()])

    def _image(self, row: int) -> Tensor:
        block = row // CHUNK
        if block != self._drawn[0]:
            # Images are drawn in fixed chunks, and rows are taken in order.
            self._drawn = block, drawn(self.bench.input, block, self._kinds).to(self.bench.device)
        return self._drawn[1][row % CHUNK]
