"""Targets: the classes that images are to show, chosen before the images exist."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from dreamquant.terms.attention import CENTRE
from dreamquant.terms.attention_priors import COMPONENTS, MIXTURES, PRIORS, REGIONS


class Targets(Protocol):
    """A way to choose targets: labels (B,) as int64, or soft ones (B, classes) that sum to 1."""

    @property
    def copies(self) -> int:
        """Consecutive images that share a target."""
        ...

    def sample(self, batch: int, classes: int, random: torch.Generator) -> Tensor:
        """Targets for a batch, on the device of ``random``."""
        ...


@dataclass(frozen=True)
class Nothing:
    """No target, for networks whose outputs are not logits of classes."""

    copies: ClassVar[int] = 1

    def sample(self, batch: int, classes: int, random: torch.Generator) -> Tensor:
        """Zeros (batch,), int64, on the device of ``random``."""
        return torch.zeros(batch, dtype=torch.int64, device=random.device)


@dataclass(frozen=True)
class OneHot:
    """Labels drawn uniformly from all classes (GDFQ, section 3.2).

    Attributes:
        copies: consecutive images that share a label.
    """

    copies: int = 1

    def sample(self, batch: int, classes: int, random: torch.Generator) -> Tensor:
        """Labels (batch,), int64, on the device of ``random``."""
        drawn = -(-batch // self.copies)
        labels = torch.randint(classes, (drawn,), generator=random, device=random.device)
        return labels.repeat_interleave(self.copies)[:batch]


@dataclass(frozen=True)
class HalfSoft:
    """Labels, of which a random half is softened (IntraQ, CVPR 2022).

    Attributes:
        lowest: τ; the value of the label in a soft target is uniform in [τ, 1), and the rest is
            spread evenly over the other classes.
    """

    lowest: float = 0.95
    copies: ClassVar[int] = 1

    def sample(self, batch: int, classes: int, random: torch.Generator) -> Tensor:
        """Targets (batch, classes), on the device of ``random``; rows sum to 1."""
        labels = OneHot().sample(batch, classes, random)
        drawn = torch.rand(2, batch, generator=random, device=random.device)
        own = torch.where(drawn[0] < 0.5, self.lowest + (1 - self.lowest) * drawn[1], 1.0)
        others = (1 - own) / (classes - 1)
        hot = F.one_hot(labels, classes).float()
        return others[:, None] * (1 - hot) + own[:, None] * hot


@dataclass(frozen=True)
class SoftLogits:
    """``softmax(Z)`` with ``Z_y ~ U(low, high)`` for a random label y (SARDFQ, ICCV 2025).

    Ours: all other logits are drawn from U(0, 1).

    Attributes:
        low: smallest logit of the label.
        high: largest logit of the label.
    """

    low: float = 5.0
    high: float = 10.0
    copies: ClassVar[int] = 1

    def sample(self, batch: int, classes: int, random: torch.Generator) -> Tensor:
        """Targets (batch, classes), on the device of ``random``; rows sum to 1."""
        labels = OneHot().sample(batch, classes, random)
        logits = torch.rand(batch, classes + 1, generator=random, device=random.device)
        own = self.low + (self.high - self.low) * logits[:, -1:]
        return logits[:, :-1].scatter(1, labels[:, None], own).softmax(1)


@dataclass(frozen=True)
class LowCorrelation:
    """Soft labels chosen for their low correlation with each other (RIS).

    Confirmed: soft labels of minimal mutual correlation. Ours: they come from a fixed table with
    the same number of labels for every class. The top class has a value drawn from ``[lowest, 1)``,
    and the rest is distributed at random. For each place in the table, ``tries`` candidates are
    drawn, and the one with the smallest mean cosine similarity to the labels already in the table
    is taken.

    Attributes:
        lowest: smallest value of the top class.
        per_class: number of labels of each top class in the table.
        tries: number of candidates for each place in the table.
    """

    lowest: float = 0.6
    per_class: int = 4
    tries: int = 8
    copies: ClassVar[int] = 1

    def sample(self, batch: int, classes: int, random: torch.Generator) -> Tensor:
        """Soft labels (batch, classes) from the table, on the device of ``random``."""
        table = low_correlation_table(classes, self.lowest, self.per_class, self.tries)
        rows = torch.randint(len(table), (batch,), generator=random, device=random.device)
        return table.to(random.device)[rows]


@lru_cache(maxsize=8)
def low_correlation_table(classes: int, lowest: float, per_class: int, tries: int) -> Tensor:
    """The table of :class:`LowCorrelation`, (classes * per_class, classes); rows sum to 1."""
    random = torch.Generator().manual_seed(0)
    chosen: list[Tensor] = []
    direction = torch.zeros(classes)
    for place in range(classes * per_class):
        candidates = _candidates(place % classes, classes, lowest, tries, random)
        # The mean cosine to all rows so far is that to the sum of their directions, up to a factor.
        likeness = F.normalize(candidates) @ direction
        best = candidates[likeness.argmin()]
        direction += F.normalize(best, dim=0)
        chosen.append(best)
    return torch.stack(chosen)


def _candidates(
    top: int, classes: int, lowest: float, tries: int, random: torch.Generator
) -> Tensor:
    mass = lowest + (1 - lowest) * torch.rand(tries, generator=random)
    spread = -torch.rand(tries, classes, generator=random).clamp(min=1e-6).log()
    spread[:, top] = 0
    soft = (1 - mass)[:, None] * spread / spread.sum(1, keepdim=True)
    soft[:, top] = mass
    return soft


class Condition(Protocol):
    """Something else that an image is to meet, (B, width)."""

    @property
    def name(self) -> str:
        """The name under which terms read it."""
        ...

    @property
    def width(self) -> int:
        """Number of values for an image."""
        ...

    @property
    def copies(self) -> int:
        """Consecutive images that share a condition."""
        ...

    def sample(self, batch: int, random: torch.Generator) -> Tensor:
        """Conditions for a batch, on the device of ``random``."""
        ...


@dataclass(frozen=True)
class AttentionCentres:
    """Attention centres drawn uniformly from the middle of the image (ACQ; the numbers are ours).

    Attributes:
        margin: fraction of the side that stays free at every edge.
        copies: number of consecutive images that have the same centre.
    """

    margin: float = 0.2
    copies: int = 2
    name: ClassVar[str] = CENTRE
    width: ClassVar[int] = 2

    def sample(self, batch: int, random: torch.Generator) -> Tensor:
        """Centres (batch, 2), row then column in [margin, 1 - margin] of the image's side."""
        drawn = -(-batch // self.copies)
        centres = torch.rand(drawn, 2, generator=random, device=random.device)
        inside = self.margin + (1 - 2 * self.margin) * centres
        return inside.repeat_interleave(self.copies, 0)[:batch]


@dataclass(frozen=True)
class Mixtures:
    """Mixtures of one to five Gaussians as priors of attention (SARDFQ; the numbers are ours)."""

    name: ClassVar[str] = PRIORS
    width: ClassVar[int] = MIXTURES * COMPONENTS * 4
    copies: ClassVar[int] = 1

    def sample(self, batch: int, random: torch.Generator) -> Tensor:
        """(batch, width): for each Gaussian row and column in [0, 1], deviation of 0.05 to 0.3,
        weight.
        """
        shape = (batch, MIXTURES, COMPONENTS, 4)
        drawn = torch.rand(shape, generator=random, device=random.device)
        row, column, spread, weight = drawn.unbind(-1)
        count = torch.randint(
            1, COMPONENTS + 1, (*shape[:2], 1), generator=random, device=random.device
        )
        used = torch.arange(COMPONENTS, device=random.device) < count
        mixture = torch.stack([row, column, 0.05 + 0.25 * spread, weight.clamp(min=0.1) * used], -1)
        return mixture.flatten(1)


@dataclass(frozen=True)
class Regions:
    """One to four square regions of each image, with labels of their own (SARDFQ).

    Ours: a side is a third to a half of the image's, and a region lies anywhere inside it.
    """

    name: ClassVar[str] = REGIONS
    width: ClassVar[int] = 4 * 5
    copies: ClassVar[int] = 1

    def sample(self, batch: int, random: torch.Generator) -> Tensor:
        """(batch, width): for each region whether it is used, top, left, side, and its label in [0,
        1).
        """
        drawn = torch.rand((batch, 4, 5), generator=random, device=random.device)
        count, top, left, side, label = drawn.unbind(-1)
        used = torch.arange(4, device=random.device) < (1 + (4 * count[:, :1]).long())
        side = 1 / 3 + side / 6
        rest = 1 - side
        return torch.stack([used.float(), top * rest, left * rest, side, label], -1).flatten(1)
