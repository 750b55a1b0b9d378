"""What a recovery is: a part of a method that yields phases and improves the student's accuracy."""

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
    """A frozen dataclass of numbers, whose phases recover the student's accuracy.

    Attributes:
        weights_by: how it rounds weights, as the protocol states it; empty where it does not.
        ranges_by: how it sets activation ranges, as the protocol states it; empty where it does
            not.
        changes_images: whether it changes the images; only the method's own images can be changed.
        paces_itself: whether it fits itself to a deadline, so that no speed has to be measured
            first.
        left_out: names of its stages that cannot run on this network or scheme, each with the
            reason.
    """

    weights_by: ClassVar[str] = ""
    ranges_by: ClassVar[str] = ""
    changes_images: ClassVar[bool] = False
    paces_itself: ClassVar[bool] = False
    left_out: tuple[tuple[str, str], ...] = ()

    @property
    def teacher_taps(self) -> tuple[Tap[Any], ...]:
        """Taps that it reads inside the teacher."""
        return ()

    @property
    def student_taps(self) -> tuple[Tap[Any], ...]:
        """Taps that it reads inside the student."""
        return ()

    @property
    def updates(self) -> int:
        """How often it lets the image source learn."""
        return 0

    @property
    def iterations(self) -> int:
        """Number of steps that can be stretched; 0 where the network determines the length."""
        return 0

    def for_any_output(self) -> Recovery:
        """The same for a network whose outputs are not logits of classes.

        Raises:
            MethodError: it needs classes.
        """
        return self

    def for_features(self) -> Recovery:
        """The same for a network whose input holds no pixels."""
        return self

    def stretched(self, ratio: float) -> Recovery:
        """The same with ``ratio`` times as many iterations."""
        return self

    def require_scheme(self, scheme: Scheme) -> None:
        """Refuse a scheme that it does not support.

        Raises:
            SchemeError: it names the part of the scheme that is not supported.
        """

    def suited(self, network: nn.Module, example: Tensor, scheme: Scheme) -> Recovery:
        """The same without the stages that cannot run on this network or scheme.

        Args:
            network: in eval mode.
            example: normalised images (B, C, H, W).
            scheme: of the student.

        Raises:
            SchemeError: it does not support the scheme, or no stage would be left.
            NetworkError: it does not support the network.
        """
        self.require_scheme(scheme)
        return self

    @abstractmethod
    def phases(self, bench: Bench, images: Images | None) -> Iterator[Phase]:
        """Its phases, one after another.

        Args:
            bench: networks, random generators and device of the run.
            images: the method's images; ``None`` where it has none.
        """
