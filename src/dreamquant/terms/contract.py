"""The contract of a term, and the step, which is all that a term sees."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from dreamquant.networks.taps import Tap, Value


class View(Protocol):
    """A network on a batch of images; gradients reach the images.

    One forward pass serves the output and all taps that the run's terms declare.
    """

    @property
    def output(self) -> Tensor:
        """(B, classes), float32."""
        ...

    def __getitem__(self, tap: Tap[Value]) -> Value:
        """What the tap read in the same forward pass.

        Raises:
            MethodError: the term that reads it does not declare it.
        """
        ...

    def on(self, images: Tensor) -> View:
        """The network on other images."""
        ...


class TeacherView(View, Protocol):
    """The teacher on this step's images, and variants of its forward pass."""

    @property
    def in_training_mode(self) -> View:
        """The same images with batch norm on the batch's own statistics; nothing is updated."""
        ...

    def under_weight_noise(self, noise: float) -> View:
        """A copy with Gaussian noise on its weights, in units of each weight tensor's deviation."""
        ...


class Step(Protocol):
    """One batch and everything computed from it; each value is computed once, on first use."""

    @property
    def images(self) -> Tensor:
        """(B, C, H, W), normalised."""
        ...

    @property
    def targets(self) -> Tensor:
        """Labels (B,), int64, or soft ones (B, classes)."""
        ...

    @property
    def latent(self) -> Tensor:
        """The input of the generator for these images, (B, latent)."""
        ...

    def condition(self, name: str) -> Tensor:
        """A condition that each image was to meet, (B, ...), or one for all images, (1, ...).

        Raises:
            MethodError: the images have no condition of this name.
        """
        ...

    @property
    def student_learns(self) -> bool:
        """Whether the student is trained in this step."""
        ...

    @property
    def random(self) -> torch.Generator:
        """Generator of random tensors, on the images' device."""
        ...

    @property
    def choice(self) -> torch.Generator:
        """Generator of random choices, on the CPU."""
        ...

    @property
    def teacher(self) -> TeacherView:
        """The full-precision network P on the images."""
        ...

    @property
    def student(self) -> View:
        """The quantized network Q on the images."""
        ...

    def reference(self, measure: Callable[[Step], Tensor]) -> Tensor:
        """``measure`` of a step with Gaussian noise as images, computed once in a run, detached."""
        ...


class Term(ABC):
    """A loss: a frozen dataclass of the paper's numbers, called on a step.

    Attributes:
        formula: shown on the method's page.
        teacher_taps: taps that it reads inside the teacher; the output needs no tap.
        student_taps: taps that it reads of the student, ``(Output(),)`` for its output alone; empty
            for a term that does not read the student.
        any_output: whether it can be used for outputs and images of any task: it does not need
            logits of classes, and does not read targets.
        every_token: whether it needs all tokens of a transformer, so that none can be left out.
    """

    formula: ClassVar[str] = ""
    teacher_taps: ClassVar[tuple[Tap[Any], ...]] = ()
    student_taps: ClassVar[tuple[Tap[Any], ...]] = ()
    any_output: ClassVar[bool] = False
    every_token: ClassVar[bool] = False

    @abstractmethod
    def __call__(self, step: Step) -> Tensor:
        """The loss, a scalar."""

    def for_labels(self) -> Term:
        """Its form for a network whose outputs are independent labels; by default the same."""
        return self

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


Terms = Sequence[Term | Weighted]


def weighted(terms: Terms) -> tuple[Weighted, ...]:
    """Every term with its weight; the weight is 1 where none is given."""
    return tuple(term if isinstance(term, Weighted) else Weighted(1.0, term) for term in terms)


def of_classes(terms: Terms) -> tuple[str, ...]:
    """Names of the terms that need logits of classes."""
    return tuple(w.name for w in weighted(terms) if not w.term.any_output)


class Minimizer:
    """A part of a method that minimises terms, and therefore has their taps.

    Attributes:
        terms: the losses that are minimised.
    """

    terms: Terms

    @property
    def teacher_taps(self) -> tuple[Tap[Any], ...]:
        """Taps that the terms read inside the teacher, each once, in the order of the terms."""
        terms = weighted(self.terms)
        return tuple(dict.fromkeys(tap for each in terms for tap in each.term.teacher_taps))

    @property
    def student_taps(self) -> tuple[Tap[Any], ...]:
        """Taps that the terms read of the student; empty where no term reads it."""
        terms = weighted(self.terms)
        return tuple(dict.fromkeys(tap for each in terms for tap in each.term.student_taps))
