"""Patches that attention reads least are stopped while images are optimised (SMI, ICML 2024).

The network sees fewer tokens from then on, so that each step takes less time.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from dreamquant.errors import NetworkError
from dreamquant.networks.token_sets import TokenSet, find_token_set
from dreamquant.training.bench import Bench


class Moved(NamedTuple):
    """How the images of a step were moved before the network saw them.

    Attributes:
        down: rows by which they were shifted, in pixels.
        right: columns.
        mirrored: whether they were mirrored afterwards.
    """

    down: int = 0
    right: int = 0
    mirrored: bool = False


@dataclass(frozen=True)
class TokenStopping:
    """Stop a fraction of the remaining patches several times.

    Confirmed by the released code: the class token's attention in the last layer, mean over heads,
    ranks the patches of each image; four times, after 50, 100, 200 and 300 steps, the lowest 30 %
    of those that remain are stopped; the image does not move while they are ranked; later moves
    count in whole patches. Ours: these times are fractions of 1000 steps, the length of PSAQ-ViT's
    schedule; without a class token, the mean attention over queries; stopped patches stay as they
    are, where the code sets them to zero.

    Attributes:
        at: fractions of the steps after which patches are stopped.
        fraction: of the remaining patches.
    """

    at: tuple[float, ...] = (0.05, 0.1, 0.2, 0.3)
    fraction: float = 0.3

    def due(self, step: int, steps: int) -> bool:
        """Whether patches are stopped before this step of so many."""
        return step > 0 and step in {round(fraction * steps) for fraction in self.at}


class Place(NamedTuple):
    """Where the network's tokens are a set, and how its patches lie in an image.

    Attributes:
        tokens: see :class:`dreamquant.networks.token_sets.TokenSet`.
        grid: rows and columns of patches; one row if images are never moved.
        size: height and width of the images in pixels.
    """

    tokens: TokenSet
    grid: tuple[int, int]
    size: tuple[int, int]


def find_place(bench: Bench, *, moved: bool) -> Place:
    """Where patches of the teacher can be stopped.

    Args:
        bench: of the run.
        moved: whether images are shifted or mirrored; features never are.

    Raises:
        NetworkError: there is no such place, or patches of moved images cannot be followed.
    """
    noise = torch.randn(2, *bench.input.shape, generator=torch.Generator().manual_seed(0))
    tokens = find_token_set(bench.teacher, noise.to(bench.device))
    size = bench.input.plane[1:]
    if not moved or bench.input.features:
        return Place(tokens, (1, tokens.patches), size)
    return Place(tokens, grid(tokens.patches, size), size)


class Tokens:
    """The patches of a batch that are still optimised.

    Args:
        stopping: the numbers.
        place: where they are stopped.
        network: in eval mode.

    Attributes:
        kept: numbers of the remaining patches, (B, K), int64; ``None`` while all remain.
    """

    def __init__(self, stopping: TokenStopping, place: Place, network: nn.Module) -> None:
        self.stopping, self.network = stopping, network
        self.tokens, self.grid, self.size = place
        self.kept: Tensor | None = None

    def stop(self, images: Tensor) -> None:
        """Stop the least attended patches of ``images``, as the network takes them (B, ...)."""
        kept = self._all(images) if self.kept is None else self.kept
        attention = self.tokens.attention(self.network, images, kept)
        least = self.tokens.leading + 1  # taps tell patches from class tokens by their number
        count = max(int(kept.shape[1] * (1 - self.stopping.fraction)), least)
        chosen = attention.topk(count, dim=1).indices.sort(dim=1).values
        self.kept = kept.gather(1, chosen)

    def _all(self, images: Tensor) -> Tensor:
        return torch.arange(self.tokens.patches, device=images.device).expand(len(images), -1)

    def remaining(self, moved: Moved) -> AbstractContextManager[None]:
        """Let the network see the remaining patches of images that were moved."""
        if self.kept is None:
            return nullcontext()
        return self.tokens.keeping(self.network, self.moved(moved))

    def moved(self, moved: Moved) -> Tensor:
        """Numbers of the remaining patches where images were moved, (B, K)."""
        kept = self.kept
        assert kept is not None
        if moved == Moved():
            return kept
        rows, columns = self.grid
        down = round(moved.down * rows / self.size[0])
        right = round(moved.right * columns / self.size[1])
        row, column = (kept // columns + down) % rows, (kept % columns + right) % columns
        return row * columns + (columns - 1 - column if moved.mirrored else column)

    def state_dict(self) -> dict[str, Any]:
        """What a later process needs to continue."""
        return {} if self.kept is None else {"kept": self.kept}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over a state from :meth:`state_dict`."""
        self.kept = state.get("kept")


def grid(patches: int, size: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns of patches, numbered row by row, that divide an image into equal squares.

    Args:
        patches: their number.
        size: height and width of the image in pixels.

    Raises:
        NetworkError: they do not.
    """
    rows = max(round((patches * size[0] / size[1]) ** 0.5), 1)
    columns = patches // rows
    if rows * columns != patches or rows * size[1] != columns * size[0]:
        raise NetworkError(
            f"{patches} patches do not divide an image of {size[0]} x {size[1]} pixels into equal "
            "squares, so they cannot be followed when it is shifted or mirrored",
            where="--method",
            remedy="leave +smi out",
        )
    return rows, columns
