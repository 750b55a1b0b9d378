"""The contract of image sources: a stream that learns and a pool have the same methods."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from dreamquant import distributed
from dreamquant.errors import MethodError
from dreamquant.terms.contract import Minimizer, Terms, of_classes
from dreamquant.training.batch import Batch, Request
from dreamquant.training.bench import Bench
from dreamquant.training.losses import Losses
from dreamquant.training.phase import Phase
from dreamquant.training.step import Step


class Images(ABC):
    """The images of a run; recovery treats a stream and a pool alike.

    Attributes:
        bench: networks, random generators and device of the run.
    """

    def __init__(self, bench: Bench) -> None:
        self.bench = bench

    def phases(self) -> Iterator[Phase]:
        """Phases that must run before the first batch is used."""
        return iter(())

    @abstractmethod
    def ask(self, size: int, random: torch.Generator, targets: Tensor | None = None) -> Request:
        """Draw the targets, latents and conditions of images.

        Args:
            size: number of images.
            random: random generator on the device.
            targets: replace those that the method would draw.
        """

    @abstractmethod
    def make(self, request: Request) -> Batch:
        """The images of a request."""

    @property
    def kept(self) -> int:
        """The number of images of a pool; 0 for a stream, which does not end."""
        return 0

    @property
    def ready(self) -> bool:
        """Whether there are images to draw yet."""
        return True

    def batch(self, size: int, random: torch.Generator | None = None) -> Batch:
        """A whole batch, the same in all processes.

        Args:
            size: number of images.
            random: random generator; by default the run's.
        """
        return self.make(self.ask(size, random or self.bench.rng.asked))

    def parts(self, size: int, *, kept: bool = False) -> Iterator[Batch]:
        """This process's micro-batches of a batch, made in the precision of training.

        All processes draw the same request.

        Args:
            size: images of the whole batch.
            kept: make them without a graph to what they are made by.
        """
        bench = self.bench
        asked = self.ask(size, bench.rng.asked)
        first = distributed.rank() * bench.accumulate
        for index in range(first, first + bench.accumulate):
            with bench.autocast(), torch.set_grad_enabled(not kept):
                batch = self.make(asked.part(index, bench.parts))
            yield batch

    @property
    def parameters(self) -> Sequence[Tensor]:
        """Parameters that learn in turns with the student; none in a pool."""
        return ()

    @property
    def asks_student(self) -> bool:
        """Whether the source's losses are differentiated through the student."""
        return False

    def networks(self) -> Mapping[str, nn.Module]:
        """Networks that learn in turns with the student, by the name that errors use."""
        return {}

    def learn(self, step: Step, losses: Losses) -> None:
        """Add gradients on the step that the student learned from; a pool adds none."""

    def update(self) -> None:
        """Take an optimizer step along the gradients that were added."""

    def state_dict(self) -> dict[str, Any]:
        """What a later process needs to continue."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over a state from :meth:`state_dict`."""


class Source(Minimizer, ABC):
    """A part of a method: a frozen dataclass of numbers that determine how images are made.

    Attributes:
        group: number of consecutive images that must stay together in a micro-batch.
    """

    group: ClassVar[int] = 1

    @property
    def kept(self) -> int:
        """The number of images of its pool; 0 for a stream."""
        return 0

    @property
    def iterations(self) -> int:
        """Steps of :meth:`Images.phases`; with those of recovery they are the length of a run."""
        return 0

    def for_any_output(self) -> Source:
        """The same for a network whose outputs are not logits of classes.

        Raises:
            MethodError: its images need classes.
        """
        require_any_output(self.terms, "its images")
        return self

    @abstractmethod
    def stretched(self, ratio: float) -> Source:
        """The same with ``ratio`` times as many steps."""

    @abstractmethod
    def open(self, bench: Bench, updates: int) -> Images:
        """The images of a run.

        Args:
            bench: networks, random generators and device of the run.
            updates: number of calls of :meth:`Images.update` in the whole run.
        """


@torch.no_grad()
def seen_classes(bench: Bench, images: Tensor) -> Tensor:
    """The teacher's class (B,), int64, of each image; 0 where its outputs are not classes."""
    if bench.input.task != "classification":
        return torch.zeros(len(images), dtype=torch.int64, device=images.device)
    classes: Tensor = bench.teacher(images).argmax(1)
    return classes


def require_any_output(terms: Terms, whose: str) -> None:
    """Refuse terms that need logits of classes.

    Raises:
        MethodError: it names them.
    """
    if names := of_classes(terms):
        raise MethodError(f"{whose} needs logits of classes for {', '.join(names)}")
