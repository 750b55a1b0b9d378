"""The bench: all that a part of a method may touch."""

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
    """Something that a checkpoint holds."""

    def state_dict(self) -> dict[str, Any]:
        """What a later process needs to go on."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over such a state."""
        ...


@dataclass
class Bench:
    """What a run works on.

    Attributes:
        prepared: P in float, its modules named as the student's.
        student: Q, its quantizers in place.
        players: P and Q with the taps that the method's terms declare.
        input: what both expect.
        rng: of the run.
        seed: of the run, for whatever starts from random numbers of its own.
        accelerator: device, precision and processes.
        accumulate: micro-batches that each process takes its part of a batch in. What is computed
            over a batch is then computed over a part of it.
        compiled: whether the networks run as compiled graphs.
        images: where the method's images come from; set once they are opened.
        kept: what else parts keep from phase to phase, by name, see :meth:`keep`.
        deadline: of the run's phases; ``None`` where they may take as long as they take.
        fall_back: gives the student the best state so far, where there is one: the run may then
            end at any time.
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
        """Let checkpoints hold ``what``; of a run that is resumed, it takes over its state now."""
        self.kept[name] = what
        if name in self._resumed:
            what.load_state_dict(self._resumed.pop(name))

    @property
    def teacher(self) -> nn.Module:
        """P, the full-precision network."""
        return self.players.teacher.network

    @property
    def device(self) -> torch.device:
        """Of both networks."""
        device: torch.device = self.accelerator.device
        return device

    def example(self) -> Tensor:
        """Two blank images, for a forward pass that finds out what runs."""
        return torch.zeros(2, *self.input.shape, device=self.device)

    @property
    def parts(self) -> int:
        """Micro-batches of a batch, over all processes."""
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
        # Who keeps something is not there yet: phases are made one by one.
        self._resumed = dict(state["kept"])
