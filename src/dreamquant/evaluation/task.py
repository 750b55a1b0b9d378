"""What a task is: when two outputs agree, and how an output is scored by labels."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from dreamquant.evaluation.intervals import mean_in_percent
from dreamquant.networks.outputs import tensors_of

Truth = Sequence[Any] | Tensor  # values of each image; the task defines them
_RESAMPLED = 100  # number of resampled sets of images


class Agreement(NamedTuple):
    """The agreement of two networks' outputs.

    Attributes:
        percent: 100 if they are equal.
        ci95: its interval over images.
        outputs: agreement of each output by name, if there are several.
    """

    percent: float
    ci95: tuple[float, float]
    outputs: dict[str, float]


class Task(ABC):
    """The meaning of a network's outputs.

    Attributes:
        agreeing: the meaning of agreement, in words.
    """

    agreeing: ClassVar[str]

    @abstractmethod
    def agree(self, given: Any, wanted: Any) -> Tensor:
        """The values that :meth:`agreement` needs of each image, (B, K), on the CPU.

        Args:
            given: outputs of a network for B images.
            wanted: outputs of the network that it should agree with.
        """

    def agreement(self, rows: Tensor) -> Agreement:
        """Agreement over all images; by default rows (N, 1) are the fraction that agrees in each
        image.

        Args:
            rows: results of :meth:`agree`, concatenated.
        """
        return Agreement(*mean_in_percent(rows[:, 0]), {})

    def decisions(self, wanted: Any) -> Tensor | None:
        """The number of times that each option was chosen, (groups, options), on the CPU.

        ``None`` for outputs that decide nothing.

        Args:
            wanted: outputs of a network for some images.
        """
        return None

    def damage(self, given: Any, wanted: Any) -> Tensor:
        """The distance of outputs from the wanted ones, a scalar.

        By default it is the squared error in units of the outputs' own variance, summed over
        outputs.
        """
        pairs = zip(tensors_of(given), tensors_of(wanted), strict=True)
        errors = [(ours - aim).square().mean() / aim.var().clamp(min=1e-12) for ours, aim in pairs]
        return torch.stack(errors).sum()


class ScoredTask(Task):
    """A task whose outputs are scored by labels, image by image."""

    @abstractmethod
    def score(self, given: Any, truth: Truth) -> Sequence[Any]:
        """The values that :meth:`scores` needs of each of B images."""

    @abstractmethod
    def scores(self, images: Sequence[Any]) -> dict[str, float]:
        """Scores in percent by name, the most important first."""

    def interval(self, images: Sequence[Any]) -> tuple[float, float]:
        """The 95 % interval of the first score, by bootstrap over images."""
        random, n, found = torch.Generator().manual_seed(0), len(images), []
        for _ in range(_RESAMPLED):
            rows = torch.randint(n, (n,), generator=random).tolist()
            found.append(next(iter(self.scores([images[row] for row in rows]).values())))
        ends = torch.quantile(torch.tensor(found), torch.tensor([0.025, 0.975]))
        return float(ends[0]), float(ends[1])
