"""The bench: everything that a part of a method may use."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from dreamquant.networks.spec import InputSpec
from dreamquant.quantization.student import Student
from dreamquant.training.deadline import Deadline
from dreamquant.training.rng import Rng
from dreamquant.training.step import Players


class Stateful(Protocol):
    """An object whose state is stored in checkpoints."""

    def state_dict(self) -> dict[str, Any]:
        """What a later process needs to continue."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over a state from :meth:`state_dict`."""
        ...


@dataclass
class Bench:
    """The networks, images and settings of a run.

    Attributes:
        prepared: P in float; its modules have the names of the student's.
        student: Q, with its quantizers.
        players: P and Q with the taps that the method's terms declare.
        input: the input of both networks.
        rng: random generators of the run.
        seed: seed of the run, for parts that have random generators of their own.
        accelerator: device, precision and processes.
        accumulate: number of micro-batches into which each process divides its part of a batch.
            Statistics of a batch are then computed over a micro-batch.
        compiled: whether the networks run as compiled graphs.
        images: the method's images; set once they are opened.
        kept: other state that parts keep between phases, by name, see :meth:`keep`.
        deadline: deadline of the run's phases; ``None`` for no limit.
        fall_back: gives the student its best state so far, where the method keeps one; such a run
            can end at any time.
    """

    prepared: nn.Module
    student: Student
    players: Players
    input: InputSpec
    rng: Rng
    seed: int
    accelerator: Accelerator
    accumulate: int = 1
    compiled: bool = False
    images: Stateful | None = None
    kept: dict[str, Stateful] = field(default_factory=dict)
    deadline: Deadline | None = None
    fall_back: Callable[[], None] | None = None
    _resumed: dict[str, Any] = field(default_factory=dict)

    def keep(self, name: str, what: Stateful) -> None:
        """Store the state of ``what`` in checkpoints; in a resumed run, load it now."""
        self.kept[name] = what
        if name in self._resumed:
            what.load_state_dict(self._resumed.pop(name))

    @property
    def teacher(self) -> nn.Module:
        """P, the full-precision network."""
        return self.players.teacher.network

    @property
    def device(self) -> torch.device:
        """The device of both networks."""
        device: torch.device = self.accelerator.device
        return device

    def example(self) -> Tensor:
        """Two blank images, for forward passes that only observe the network."""
        return torch.zeros(2, *self.input.shape, device=self.device)

    @property
    def parts(self) -> int:
        """Number of micro-batches of a batch, over all processes."""
        return self.accumulate * int(self.accelerator.num_processes)

    def autocast(self) -> AbstractContextManager[None]:
        """The precision of training."""
        return self.accelerator.autocast()  # type: ignore[no-any-return]

    def state_dict(self) -> dict[str, Any]:
        """The student, the random generators and the images as they are now."""
        return {
            "student": self.student.state_dict(),
            "rng": self.rng.state_dict(),
            "images": {} if self.images is None else self.images.state_dict(),
            "kept": {name: what.state_dict() for name, what in self.kept.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over a state from :meth:`state_dict`."""
        self.student.load_state_dict(state["student"])
        self.rng.load_state_dict(state["rng"])
        if self.images is not None:
            self.images.load_state_dict(state["images"])
        # The owners of kept state do not exist yet, because phases are made one by one.
        self._resumed = dict(state["kept"])
