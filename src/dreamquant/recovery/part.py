"""What recovers accuracy: a part of a method that yields phases."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, ClassVar

from torch import Tensor, nn

from dreamquant.networks.taps import Tap
from dreamquant.quantization.scheme import Scheme
from dreamquant.synthesis.source import Images
from dreamquant.training.bench import Bench
from dreamquant.training.phase import Phase


class Recovery(ABC):
    """A frozen dataclass of the numbers by which accuracy is recovered.

    Attributes:
        weights_by: how it rounds weights, for the protocol; empty where it does not.
        ranges_by: how it sets activation ranges, likewise.
        changes_images: whether it changes the images, which then have to be the method's own.
        paces_itself: whether it fits itself to a deadline, so that no speed need be measured first.
        left_out: its stages that a network or a scheme gives no means for, and why.
    """

    weights_by: ClassVar[str] = ""
    ranges_by: ClassVar[str] = ""
    changes_images: ClassVar[bool] = False
    paces_itself: ClassVar[bool] = False
    left_out: tuple[tuple[str, str], ...] = ()

    @property
    def teacher_taps(self) -> tuple[Tap[Any], ...]:
        """What it reads inside the teacher."""
        return ()

    @property
    def student_taps(self) -> tuple[Tap[Any], ...]:
        """What it reads of the student."""
        return ()

    @property
    def updates(self) -> int:
        """How often it lets the images learn along."""
        return 0

    @property
    def iterations(self) -> int:
        """Steps that can be stretched; 0 where its length is given by the network."""
        return 0

    def for_any_output(self) -> Recovery:
        """The same for a network whose outputs are no logits of classes.

        Raises:
            MethodError: it cannot do without classes.
        """
        return self

    def stretched(self, ratio: float) -> Recovery:
        """The same with ``ratio`` times as many iterations."""
        return self

    def require_scheme(self, scheme: Scheme) -> None:
        """Refuse a scheme that it has no way to serve.

        Raises:
            SchemeError: it says in words what the scheme has that stands in the way.
        """

    def suited(self, network: nn.Module, example: Tensor, scheme: Scheme) -> Recovery:
        """The same without what a network or a scheme gives it no means for.

        Args:
            network: in eval mode.
            example: normalised images (B, C, H, W).
            scheme: of the student.

        Raises:
            SchemeError: nothing of it would be left.
        """
        self.require_scheme(scheme)
        return self

    @abstractmethod
    def phases(self, bench: Bench, images: Images | None) -> Iterator[Phase]:
        """What is to be done, phase by phase.

        Args:
            bench: what the run works on.
            images: of the method; ``None`` where it has none.
        """
