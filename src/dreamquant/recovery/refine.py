"""Refinement of a pool's images for the student: SADAG (Hoang-Anh et al., ICML 2024)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from dreamquant.errors import MethodError
from dreamquant.networks.classifier_input import ClassifierInput
from dreamquant.networks.taps import Output, Tap
from dreamquant.recovery.part import Recovery
from dreamquant.synthesis.given import GivenPool
from dreamquant.synthesis.pool import Pool
from dreamquant.synthesis.source import Images
from dreamquant.terms.contract import Terms, weighted
from dreamquant.training.batch import Batch
from dreamquant.training.bench import Bench
from dreamquant.training.decay import stretch
from dreamquant.training.losses import Losses, total
from dreamquant.training.optimizers import Adam
from dreamquant.training.phase import Phase
from dreamquant.training.step import Step

_AT_ONCE = 32


class Directions(NamedTuple):
    """Directions of each image's gradient at the last layer, which is the outer product of two
    vectors.

    Attributes:
        features: (B, F), the input of the student's last layer, normalised to length 1.
        residuals: (B, classes), the teacher's logits minus the student's, normalised to length 1.
    """

    features: Tensor
    residuals: Tensor

    @classmethod
    def of(cls, features: Tensor, residuals: Tensor) -> Directions:
        """The directions of vectors of any length."""
        return cls(F.normalize(features), F.normalize(residuals))

    def likeness(self, other: Directions) -> Tensor:
        """Cosines between gradients of all pairs of images, (B, B')."""
        return (self.features @ other.features.T) * (self.residuals @ other.residuals.T)


def mismatch(own: Directions, near: Directions) -> Tensor:
    """``1 - E[cos(f', f) cos(r', r)]``: the change of the gradient in an image's neighbourhood."""
    alike = (own.features * near.features).sum(1) * (own.residuals * near.residuals).sum(1)
    return 1 - alike.mean()


def sameness(own: Directions, earlier: Directions) -> Tensor:
    """``E_i max_{j ≠ i} |cos|`` among these images and those of earlier batches."""
    among = own.likeness(own).abs()
    among = among.masked_fill(torch.eye(len(among), dtype=torch.bool, device=among.device), 0)
    return torch.cat([among, own.likeness(earlier).abs()], 1).amax(1).mean()


@dataclass(frozen=True)
class RefineImages(Recovery):
    """Moves the pool's images to places where the student's loss is flat.

    In addition to the terms, the images minimise how much the gradient at the student's last layer
    changes in an image's neighbourhood, and how similar the gradients of two images are.

    Attributes:
        terms: further losses of the images.
        batch: number of images that are refined together.
        steps: steps of Adam on each batch.
        lr: Adam's learning rate, in units of the normalised image.
        reach: distance of a neighbour, as a fraction of the image's length.
        match: weight of :func:`mismatch`.
        spread: weight of :func:`sameness`.
    """

    changes_images: ClassVar[bool] = True

    terms: Terms
    batch: int = 128
    steps: int = 500
    lr: float = 1e-3
    reach: float = 0.06
    match: float = 1.0
    spread: float = 1.0

    @property
    def teacher_taps(self) -> tuple[Tap[Any], ...]:
        """What the terms read inside the teacher."""
        return tuple(dict.fromkeys(t for w in weighted(self.terms) for t in w.term.teacher_taps))

    @property
    def student_taps(self) -> tuple[Tap[Any], ...]:
        """The input of its last layer, and its output."""
        return (Output(), ClassifierInput())

    @property
    def iterations(self) -> int:
        """Steps of a batch, which can be stretched."""
        return self.steps

    def stretched(self, ratio: float) -> RefineImages:
        """The same with ``ratio`` times as many steps of each batch."""
        return replace(self, steps=max(stretch(self.steps, ratio), 1))

    def phases(self, bench: Bench, images: Images | None) -> Iterator[Phase]:
        """One phase for each batch.

        Raises:
            MethodError: the images are not a pool of the method's own.
        """
        if not isinstance(images, Pool) or isinstance(images, GivenPool):
            raise MethodError(
                "RefineImages needs a pool of images that the method itself makes",
                remedy="give the method images=Pixels(…), or leave RefineImages out",
            )
        for first in range(0, images.size, self.batch):
            yield _Refining(self, bench, images, first, min(self.batch, images.size - first))


class _Refining(Phase):
    stretches = True

    def __init__(
        self, recovery: RefineImages, bench: Bench, pool: Pool, first: int, count: int
    ) -> None:
        super().__init__()
        self.name = f"refining images {first + 1} to {first + count}"
        self.recovery, self.bench, self.pool = recovery, bench, pool
        self.total, self.images, self.first = recovery.steps, count, first
        self.terms = weighted(recovery.terms)
        self.pixels = torch.empty(0)
        self.optimizer: Adam | None = None

    def step(self) -> Losses:
        """One step of Adam on all images of the batch."""
        if self.optimizer is None:
            rows = torch.arange(self.first, self.first + self.images, device=self.bench.device)
            self._begin(self.pool.read(rows))
        assert self.optimizer is not None
        recovery, losses = self.recovery, Losses()
        players, rng = self.bench.players, self.bench.rng
        with self.bench.autocast():
            targets = self.pool.targets[self.first : self.first + self.images]
            step = Step(Batch(self.pixels, targets, targets), players, rng, student_learns=False)
            loss = total(self.terms, step, losses, "images", 1)
            residuals = step.teacher.output - step.student.output
            own = Directions.of(step.student[ClassifierInput()], residuals)
            match = mismatch(own, self._read(self._neighbours()))
            spread = sameness(own, self._earlier)
        loss = loss + recovery.match * match + recovery.spread * spread
        (self.pixels.grad,) = torch.autograd.grad(loss, [self.pixels])
        self.optimizer.step(recovery.lr)
        if self.done + 1 == self.total:
            self.pool.put(self.first, self.pixels)
        return {**losses, "images/match": match.detach(), "images/spread": spread.detach()}

    def _begin(self, pixels: Tensor) -> None:
        self.pixels = pixels.clone().requires_grad_()
        self.optimizer = Adam([self.pixels], betas=(0.9, 0.999))
        with torch.no_grad():
            earlier = torch.split(torch.arange(self.first, device=pixels.device), _AT_ONCE)
            read = [self._read(self.pool.read(rows)) for rows in earlier if len(rows)]
            read = read or [self._none(pixels)]
        self._earlier = Directions(*(torch.cat(each) for each in zip(*read, strict=True)))

    def _none(self, pixels: Tensor) -> Directions:
        one = self._read(pixels[:2])
        return Directions(one.features[:0], one.residuals[:0])

    def _read(self, images: Tensor) -> Directions:
        players = self.bench.players
        wanted, _ = players.teacher.read(images, compiled=False)
        given, values = players.student.read(images, compiled=False)
        return Directions.of(values[ClassifierInput()], wanted - given)

    def _neighbours(self) -> Tensor:
        random = self.bench.rng.random
        drawn = torch.randn(self.pixels.shape, generator=random, device=self.pixels.device)
        length = self.pixels.detach().flatten(1).norm(dim=1, keepdim=True)
        away: Tensor = self.recovery.reach * length * F.normalize(drawn.flatten(1))
        return self.pixels + away.view_as(self.pixels)

    def state_dict(self) -> dict[str, Any]:
        """The images as they are now, and the optimizer."""
        if self.optimizer is None:
            return {}
        return {"pixels": self.pixels.detach(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over a state from :meth:`state_dict`."""
        if state:
            self._begin(state["pixels"].to(self.bench.device))
            assert self.optimizer is not None
            self.optimizer.load_state_dict(state["optimizer"])
