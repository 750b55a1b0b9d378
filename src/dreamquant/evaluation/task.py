"""What a task is: when two outputs agree, and how one scores by the truth."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from dreamquant.evaluation.intervals import mean_in_percent
from dreamquant.networks.outputs import tensors_of

Truth = Sequence[Any] | Tensor  # of each image, as the task has it
_RESAMPLED = 100  # sets of images


class Agreement(NamedTuple):
    """How near one network's outputs come to another's.

    Attributes:
        percent: 100 where they are equal.
        ci95: interval of that over images.
        outputs: likewise of each output by name, where there are several.
    """

    percent: float
    ci95: tuple[float, float]
    outputs: dict[str, float]


class Task(ABC):
    """What a network's outputs are for.

    Attributes:
        agreeing: what agreement means, in words.
    """

    agreeing: ClassVar[str]

    @abstractmethod
    def agree(self, given: Any, wanted: Any) -> Tensor:
        """What :meth:`agreement` needs to know of each image, (B, K), on the CPU.

        Args:
            given: outputs of a network for B images.
            wanted: of the network that it should agree with.
        """

    def agreement(self, rows: Tensor) -> Agreement:
        """Agreement over all images; by default rows (N, 1) are what of an image agrees.

        Args:
            rows: of :meth:`agree`, one below the other.
        """
        return Agreement(*mean_in_percent(rows[:, 0]), {})

    def damage(self, given: Any, wanted: Any) -> Tensor:
        """How far outputs went from those that are wanted, a scalar that grows with it.

        By default squared errors in units of the outputs' own variance, summed over outputs.
        """
        pairs = zip(tensors_of(given), tensors_of(wanted), strict=True)
        errors = [(ours - aim).square().mean() / aim.var().clamp(min=1e-12) for ours, aim in pairs]
        return torch.stack(errors).sum()


class ScoredTask(Task):
    """A task whose outputs are scored by a truth, image by image."""

    @abstractmethod
    def score(self, given: Any, truth: Truth) -> Sequence[Any]:
        """What :meth:`scores` needs to know of each of B images."""

    @abstractmethod
    def scores(self, images: Sequence[Any]) -> dict[str, float]:
        """Figures in percent by name, the most important first."""

    def interval(self, images: Sequence[Any]) -> tuple[float, float]:
        """The first figure's 95 % interval: as many images are drawn anew, again and again."""
        random, n, found = torch.Generator().manual_seed(0), len(images), []
        for _ in range(_RESAMPLED):
            rows = torch.randint(n, (n,), generator=random).tolist()
            found.append(next(iter(self.scores([images[row] for row in rows]).values())))
        ends = torch.quantile(torch.tensor(found), torch.tensor([0.025, 0.975]))
        return float(ends[0]), float(ends[1])
