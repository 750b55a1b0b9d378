"""Where images come from: one contract for a stream that learns and a pool that is kept."""

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
    """Images of a run; who recovers accuracy on them cannot tell a stream from a pool.

    Attributes:
        bench: what the run works on.
    """

    def __init__(self, bench: Bench) -> None:
        self.bench = bench

    def phases(self) -> Iterator[Phase]:
        """What has to be done before the first batch is used."""
        return iter(())

    @abstractmethod
    def ask(self, size: int, random: torch.Generator, targets: Tensor | None = None) -> Request:
        """Draw what images are to be.

        Args:
            size: how many.
            random: that is drawn from, on the device.
            targets: in place of those that the method draws.
        """

    @abstractmethod
    def make(self, request: Request) -> Batch:
        """The images that were asked for."""

    @property
    def kept(self) -> int:
        """How many there are; 0 of a stream, which does not end."""
        return 0

    @property
    def ready(self) -> bool:
        """Whether there are images to draw yet."""
        return True

    def batch(self, size: int, random: torch.Generator | None = None) -> Batch:
        """A whole batch, the same in all processes.

        Args:
            size: how many images.
            random: that is drawn from; by default the run's.
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
        """What learns along with the student; nothing in a pool."""
        return ()

    @property
    def asks_student(self) -> bool:
        """Whether what is learned goes through the student."""
        return False

    def networks(self) -> Mapping[str, nn.Module]:
        """Networks that learn along, by what an error calls them."""
        return {}

    def learn(self, step: Step, losses: Losses) -> None:
        """Add gradients on the step that the student learned from; a pool has none to add."""

    def update(self) -> None:
        """Follow the gradients that were added."""

    def state_dict(self) -> dict[str, Any]:
        """What a later process needs to go on."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over a state from :meth:`state_dict`."""


class Source(Minimizer, ABC):
    """A part of a method: a frozen dataclass of the numbers by which images are made.

    Attributes:
        group: consecutive images that must stay together in a micro-batch.
    """

    group: ClassVar[int] = 1

    @property
    def kept(self) -> int:
        """Images that it keeps; 0 of a stream."""
        return 0

    @property
    def iterations(self) -> int:
        """Steps of :meth:`Images.phases`; with those of recovery, the length of a run."""
        return 0

    def for_any_output(self) -> Source:
        """The same for a network whose outputs are no logits of classes.

        Raises:
            MethodError: its images cannot do without classes.
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
            bench: what the run works on.
            updates: how often recovery will call :meth:`Images.update`.
        """


@torch.no_grad()
def seen_classes(bench: Bench, images: Tensor) -> Tensor:
    """The class (B,), int64, that the teacher sees in each image; 0 where it sees no classes."""
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
        raise MethodError(f"{whose} learns by {', '.join(names)}, for logits of classes")
