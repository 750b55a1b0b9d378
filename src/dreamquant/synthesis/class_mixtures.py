"""Soft targets that mix classes: any of them (Qimera), or those that are alike (DynaDFQ)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from dreamquant.synthesis.targets import OneHot, Targets


@dataclass(frozen=True)
class Superposition:
    """One-hot targets, and in some batches mixtures of several classes (Qimera, NeurIPS 2021).

    Either all targets of a batch are mixtures, or none: ``t = Σ_k w_k onehot(y_k)`` with labels y_k
    drawn uniformly, where a label may occur twice, and ``w = softmax(n)``, n ~ N(0, I).

    Attributes:
        probability: that the targets of a batch are mixtures.
        count: K, the number of labels of one image.
    """

    probability: float = 0.4
    count: int = 2
    copies: ClassVar[int] = 1

    def sample(self, batch: int, classes: int, random: torch.Generator) -> Tensor:
        """Targets (batch, classes), on the device of ``random``; rows sum to 1."""
        device, shape = random.device, (batch, self.count)
        drawn = torch.rand((), generator=random, device=device)
        labels = torch.randint(classes, shape, generator=random, device=device)
        weights = torch.randn(shape, generator=random, device=device).softmax(1)
        alone = F.one_hot(torch.zeros_like(labels[:, 0]), self.count).to(weights)
        weights = torch.where(drawn < self.probability, weights, alone)
        return torch.zeros(batch, classes, device=device).scatter_add_(1, labels, weights)


@dataclass(frozen=True)
class SimilarClasses:
    """Labels, and for some images soft ones spread over similar classes (DynaDFQ).

    Confirmed, from the abstract: plausibly difficult images get soft labels whose probabilities lie
    on a group of similar classes, and classes are similar whose rows of the last layer's weight
    are. Ours: similarity is the inner product of rows; a group is a label and those most similar to
    it; the probabilities on it are drawn uniformly from all that there are.

    Attributes:
        hard: fraction of images with soft labels.
        group: classes of a group, with the label.
    """

    hard: float = 0.5
    group: int = 3
    copies: ClassVar[int] = 1

    def fitted(self, weight: Tensor) -> Targets:
        """The targets for a teacher.

        Args:
            weight: (classes, F) of its last layer.
        """
        likeness = (weight @ weight.T).fill_diagonal_(torch.inf)
        size = min(self.group, len(weight))
        return _Groups(self.hard, likeness.topk(size, dim=1).indices)


@dataclass(frozen=True)
class _Groups:
    hard: float
    members: Tensor  # (classes, group): the label itself and those like it
    copies: ClassVar[int] = 1

    def sample(self, batch: int, classes: int, random: torch.Generator) -> Tensor:
        """Targets (batch, classes), on the device of ``random``; rows sum to 1."""
        device = random.device
        labels = OneHot().sample(batch, classes, random)
        members = self.members.to(device)[labels]
        drawn = torch.rand(members.shape, generator=random, device=device).clamp(min=1e-6)
        spread = -drawn.log()  # exponential: normalised, uniform over the simplex
        spread = spread / spread.sum(1, keepdim=True)
        hard = torch.rand((batch, 1), generator=random, device=device) < self.hard
        weights = torch.where(hard, spread, (members == labels[:, None]).to(spread))
        return torch.zeros(batch, classes, device=device).scatter_add_(1, members, weights)
