"""What a term is, and the only thing it sees: the step."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple, Protocol

import torch
from torch import Tensor

Tap = Literal["statistics", "activation", "student"]


class Statistics(NamedTuple):
    """Batch-norm statistics of all layers in one vector each; F is the channels of all layers.

    Attributes:
        mean: (F,) of the batch norms' inputs on this batch.
        var: (F,) biased variance of the same.
        stored_mean: (F,) what the teacher remembers of its training data.
        stored_var: (F,) likewise.
        share: (F,) weight of each channel, such that a weighted sum averages over a layer's
            channels and then over layers; sums to 1.
    """

    mean: Tensor
    var: Tensor
    stored_mean: Tensor
    stored_var: Tensor
    share: Tensor


class Answer(NamedTuple):
    """What the teacher makes of a batch.

    Attributes:
        logits: (B, classes).
        activation: (B, F, h, w), the last feature map that leaves a ReLU.
    """

    logits: Tensor
    activation: Tensor

    @property
    def features(self) -> Tensor:
        """The map pooled over space, (B, F)."""
        return self.activation.mean((2, 3))


class TeacherView(Protocol):
    """The teacher on this step's images; gradients reach the images."""

    @property
    def logits(self) -> Tensor:
        """(B, classes)."""
        ...

    @property
    def statistics(self) -> Statistics:
        """Batch-norm statistics of the same forward pass."""
        ...

    @property
    def answer(self) -> Answer:
        """Logits and last feature map of the same forward pass."""
        ...

    @property
    def activation(self) -> Tensor:
        """The last feature map (B, F, h, w)."""
        ...

    @property
    def features(self) -> Tensor:
        """The last feature map pooled over space, (B, F)."""
        ...

    @property
    def in_training_mode(self) -> Answer:
        """The answer with batch norm on the batch's own statistics; nothing is updated."""
        ...

    def on(self, images: Tensor) -> Answer:
        """The answer to other images."""
        ...

    def under_weight_noise(self, noise: float) -> Answer:
        """The answer of a copy with Gaussian noise on its weights, in units of their deviation."""
        ...


class StudentView(Protocol):
    """The student on this step's images; gradients reach the images and its parameters."""

    @property
    def logits(self) -> Tensor:
        """(B, classes)."""
        ...


class Step(Protocol):
    """One batch and everything shared about it, each computed on first use, once."""

    @property
    def images(self) -> Tensor:
        """(B, C, H, W), normalised."""
        ...

    @property
    def targets(self) -> Tensor:
        """Labels (B,), int64, or soft ones (B, classes)."""
        ...

    @property
    def noise(self) -> Tensor:
        """What the generator made the images from, (B, latent)."""
        ...

    @property
    def centres(self) -> Tensor:
        """Attention centres asked for, (B, 2), row then column in [0, 1] of the side."""
        ...

    @property
    def student_learns(self) -> bool:
        """Whether the student's warm-up is over."""
        ...

    @property
    def random(self) -> torch.Generator:
        """For random tensors, on the images' device."""
        ...

    @property
    def dice(self) -> torch.Generator:
        """For random choices, on the CPU."""
        ...

    @property
    def teacher(self) -> TeacherView:
        """The full-precision network P on the images."""
        ...

    @property
    def student(self) -> StudentView:
        """The quantized network Q on the images."""
        ...

    def on_noise(self, measure: Callable[[Step], Tensor]) -> Tensor:
        """``measure`` of a step whose images are Gaussian noise, taken once a run, detached."""
        ...


class Term(ABC):
    """A loss: a frozen dataclass of the paper's numbers, called on a step.

    A subclass lists in ``taps`` what it reads beyond the images, the targets and the teacher's
    logits, so that a run computes nothing that no term asks for.
    """

    taps: ClassVar[frozenset[Tap]] = frozenset()

    @abstractmethod
    def __call__(self, step: Step) -> Tensor:
        """The loss, a scalar."""

    def __rmul__(self, weight: float) -> Weighted:
        """``0.1 * term``."""
        return Weighted(weight, self)


@dataclass(frozen=True)
class Weighted:
    """A term and its weight in the sum."""

    weight: float
    term: Term

    @property
    def name(self) -> str:
        """The term's class name, which logs use."""
        return type(self.term).__name__
