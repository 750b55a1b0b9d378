"""A pool: images that are kept, so that every batch is drawn from the same ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from dreamquant.synthesis.source import Images
from dreamquant.training.batch import Batch, Request
from dreamquant.training.bench import Bench


class Pool(Images):
    """Kept images with their targets.

    Batches go through the pool in an order drawn anew each time it is used up, so that every image
    counts alike. Where targets are asked for, images of these targets are drawn.

    Args:
        bench: what the run works on.
        size: images it will hold.
    """

    def __init__(self, bench: Bench, size: int) -> None:
        super().__init__(bench)
        self.size = size
        self.images = torch.empty(0)
        self.targets = torch.empty(0, dtype=torch.int64)
        self._order: list[int] = []

    @property
    def kept(self) -> int:
        """Images it will hold."""
        return self.size

    @property
    def ready(self) -> bool:
        """Whether the pool holds any image yet."""
        return len(self.targets) > 0

    def add(self, images: Tensor, targets: Tensor) -> None:
        """Keep more images (B, C, H, W) and their targets."""
        images, targets = images.detach(), targets.detach()
        self.images = torch.cat([self.images.to(images), images])
        self.targets = torch.cat([self.targets.to(targets), targets])

    def take(self) -> tuple[Tensor, Tensor]:
        """Images and targets, which the pool then holds no more."""
        taken = self.images, self.targets
        # Not slices of them, which would hold their memory.
        self.images, self.targets = torch.empty(0), torch.empty(0, dtype=torch.int64)
        return taken

    def put(self, first: int, images: Tensor) -> None:
        """Keep other images in place of those from row ``first`` on; their targets stay."""
        self.images[first : first + len(images)] = images.detach()

    def read(self, rows: Tensor) -> Tensor:
        """Images (B, C, H, W) of these rows."""
        return self.images[rows]

    def ask(self, size: int, random: torch.Generator, targets: Tensor | None = None) -> Request:
        """Rows of the pool."""
        rows = self._next(size, random) if targets is None else self._of(targets, random)
        return Request(self.targets[rows], rows)

    def make(self, request: Request) -> Batch:
        """The images of these rows."""
        return Batch(self.read(request.latent), request.targets, request.latent)

    def _next(self, size: int, random: torch.Generator) -> Tensor:
        if random is not self.bench.rng.asked:
            # Whoever draws for a look of its own leaves the order of the run alone.
            return torch.randint(len(self.targets), (size,), generator=random, device=random.device)
        while len(self._order) < size:
            drawn = torch.randperm(len(self.targets), generator=random, device=random.device)
            self._order += drawn.tolist()
        rows, self._order = self._order[:size], self._order[size:]
        return torch.tensor(rows, device=self.targets.device)

    def _of(self, targets: Tensor, random: torch.Generator) -> Tensor:
        """For each target one image of it, or any where there is none."""
        fits = (_labels(self.targets) == _labels(targets)[:, None]).float()
        chances = torch.where(fits.sum(1, keepdim=True) > 0, fits, torch.ones_like(fits))
        return torch.multinomial(chances, 1, generator=random).flatten()

    def state_dict(self) -> dict[str, Any]:
        """The images so far, their targets and the order."""
        return {"images": self.images, "targets": self.targets, "order": list(self._order)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over a state from :meth:`state_dict`."""
        device = self.bench.device
        self.images, self.targets = state["images"].to(device), state["targets"].to(device)
        self._order = list(state["order"])


def _labels(targets: Tensor) -> Tensor:
    """Of soft targets the largest."""
    return targets if targets.dim() == 1 else targets.argmax(1)
