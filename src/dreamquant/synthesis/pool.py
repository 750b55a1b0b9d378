"""A pool: a fixed set of images from which all batches are drawn."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from dreamquant.synthesis.source import Images
from dreamquant.training.batch import Batch, Request
from dreamquant.training.bench import Bench


class Pool(Images):
    """A fixed set of images with their targets.

    Batches follow a random order of the pool, and a new order is drawn when it is used up, so that
    every image is used equally often. Where a caller gives targets, images of these targets are
    drawn.

    Args:
        bench: networks, random generators and device of the run.
        size: number of images that the pool will hold.
    """

    def __init__(self, bench: Bench, size: int) -> None:
        super().__init__(bench)
        self.size = size
        self.images = torch.empty(0)
        self.targets = torch.empty(0, dtype=torch.int64)
        self._order: list[int] = []

    @property
    def kept(self) -> int:
        """The number of images that the pool will hold."""
        return self.size

    @property
    def ready(self) -> bool:
        """Whether the pool holds any image yet."""
        return len(self.targets) > 0

    def add(self, images: Tensor, targets: Tensor) -> None:
        """Add images (B, C, H, W) and their targets."""
        images, targets = images.detach(), targets.detach()
        self.images = torch.cat([self.images.to(images), images])
        self.targets = torch.cat([self.targets.to(targets), targets])

    def take(self) -> tuple[Tensor, Tensor]:
        """Remove all images and targets from the pool, and return them."""
        taken = self.images, self.targets
        # Copies: a slice would keep the memory of the whole tensor.
        self.images, self.targets = torch.empty(0), torch.empty(0, dtype=torch.int64)
        return taken

    def put(self, first: int, images: Tensor) -> None:
        """Replace images from row ``first`` on; their targets stay the same."""
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
            # Another random generator than the run's must not change the order of the run.
            return torch.randint(len(self.targets), (size,), generator=random, device=random.device)
        while len(self._order) < size:
            drawn = torch.randperm(len(self.targets), generator=random, device=random.device)
            self._order += drawn.tolist()
        rows, self._order = self._order[:size], self._order[size:]
        return torch.tensor(rows, device=self.targets.device)

    def _of(self, targets: Tensor, random: torch.Generator) -> Tensor:
        """One image of each target, or any image if no image has this target."""
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
    """Labels; of soft targets the class with the largest value."""
    return targets if targets.dim() == 1 else targets.argmax(1)
