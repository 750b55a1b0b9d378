"""What a term is, and the only thing it sees: the step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple, Protocol

from torch import Tensor

Tap = Literal["statistics", "student"]


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
        """Labels (B,), int64."""
        ...

    @property
    def teacher(self) -> TeacherView:
        """The full-precision network P on the images."""
        ...

    @property
    def student(self) -> StudentView:
        """The quantized network Q on the images."""
        ...


class Term:
    """A loss: a frozen dataclass of the paper's numbers, called on a step.

    A subclass lists in ``taps`` what it reads beyond the images, the targets and the teacher's
    logits, so that a run computes nothing that no term asks for.
    """

    taps: ClassVar[frozenset[Tap]] = frozenset()

    def __call__(self, step: Step) -> Tensor:
        """The loss, a scalar."""
        raise NotImplementedError

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
