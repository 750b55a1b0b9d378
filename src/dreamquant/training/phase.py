"""Phases: a run is a list of them, and each is made from the state that earlier ones left."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from torch import nn

from dreamquant.training.bench import Bench
from dreamquant.training.deadline import Deadline
from dreamquant.training.finite import require_finite_networks
from dreamquant.training.losses import Losses, Unread

LOG_EVERY = 10


class Phase(ABC):
    """A part of a run in which all steps are of one kind.

    Its constructor is cheap and changes nothing; work begins with the first step. An interrupted
    phase continues from the student's own state and :meth:`state_dict`.

    Attributes:
        name: shown to the user.
        kind: what the phase is one of, if a run has several such phases; they are shown as one.
        total: number of steps.
        done: number of steps so far.
        images: number of images that a step uses; 0 for none.
        learns: whether the student is trained.
        in_training_precision: whether its steps run in the precision of training; others run in
            float32.
        stretches: whether its number of steps grows with the length of the run; otherwise the
            network determines it.
        finding: a result of the phase for the manifest; ``None`` if it has none.
        longest: number of steps to which a deadline may stretch it; ``None`` for ``total``.
        share: fraction of the time left at its start, to which its steps are fitted if the run has
            a deadline.
    """

    name: str
    kind: str = ""
    total: int
    images: int = 0
    learns: bool = False
    in_training_precision: bool = False
    stretches: bool = False
    longest: int | None = None
    share: float = 1.0
    finding: Mapping[str, Any] | None = None

    def __init__(self) -> None:
        self.done = 0

    @property
    def over(self) -> bool:
        """Whether all steps are done."""
        return self.done >= self.total

    @abstractmethod
    def step(self) -> Losses:
        """Do one step.

        Returns:
            Losses by name, scalars left on the device; the same names in every step.
        """

    def leave(self) -> None:
        """Write the present state to where later phases read it; used to time a run."""

    def abandon(self) -> None:
        """Release both networks: no further step will follow."""

    def trained(self) -> Mapping[str, nn.Module]:
        """Networks that the step changes, beside the student; all must stay finite."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """What a later process needs to continue, beside the student; tensors and plain values."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over a state from :meth:`state_dict`."""


class Run:
    """The phases of a run, one after another, and its present position.

    Args:
        bench: networks, random generators and device of the run.
        phases: made one by one: a later one sees the results of earlier ones.
        plan: seconds of each phase, if a deadline is divided among them in these proportions.

    Attributes:
        phase: the present phase; after the run, the last one.
        index: its number.
        ended: name and steps of each phase that has ended.
        cut: why the run ends before its phases do, with the bench's best student; else empty.
    """

    def __init__(self, bench: Bench, phases: Iterator[Phase], plan: Sequence[float] = ()) -> None:
        self.bench, self._phases, self._plan = bench, phases, plan
        self.cut = ""
        self.phase: Phase | None = None
        self.index = -1
        self.ended: list[tuple[str, int]] = []

    @property
    def done(self) -> int:
        """Number of steps so far, over all phases."""
        now = 0 if self.phase is None or self.over_at_end else self.phase.done
        return sum(steps for _, steps in self.ended) + now

    @property
    def over_at_end(self) -> bool:
        """Whether the present phase is recorded among those that have ended."""
        return len(self.ended) > self.index >= 0

    @property
    def deadline(self) -> Deadline | None:
        """The deadline of all phases together."""
        return self.bench.deadline

    def steps(self) -> Iterator[Losses]:
        """Do all remaining steps, one by one."""
        while self.phase is not None or self._next():
            assert self.phase is not None
            while not self.phase.over:
                if self.deadline is not None:
                    self.deadline.fit(self.phase)
                losses = self.phase.step()
                self.phase.done += 1
                yield losses
                if self._falls_back():
                    return
            self._end()
            if not self._next():
                return

    def _falls_back(self) -> bool:
        """Whether the run is out of time or cut, and there is a student to end with."""
        late = self.deadline is not None and self.deadline.passed
        if self.bench.fall_back is None or not (self.cut or late):
            return False
        self.cut = self.cut or "its time is up"
        assert self.phase is not None
        self.phase.abandon()
        self.bench.fall_back()
        return True

    def _end(self) -> None:
        # A run that has ended may be iterated again, and has no steps then.
        if self.phase is not None and not self.over_at_end:
            self.ended.append((self.phase.name, self.phase.total))

    def _next(self) -> bool:
        """Make the next phase that has steps; returns whether there is one."""
        phase = next((phase for phase in self._phases if phase.total), None)
        if phase is None:
            return False
        self.phase, self.index = phase, self.index + 1
        if rest := sum(self._plan[self.index :]):
            phase.share = self._plan[self.index] / rest
        return True

    def skip_to_end_of_phase(self) -> bool:
        """Leave the present phase in its state and make the next one.

        Returns:
            Whether there is a next one.
        """
        self._end()
        return self._next()

    def state_dict(self) -> dict[str, Any]:
        """What a later process needs to continue bit for bit; tensors and plain values."""
        phase = self.phase
        return {
            "bench": self.bench.state_dict(),
            "index": self.index,
            "done": 0 if phase is None else phase.done,
            "total": 0 if phase is None else phase.total,
            "phase": {} if phase is None else phase.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over a state from :meth:`state_dict`; phases that have ended are not run again."""
        self.bench.load_state_dict(state["bench"])
        for _ in range(state["index"] + 1):
            if not self.skip_to_end_of_phase():
                raise LookupError("the run has fewer phases than the checkpoint")
        if self.phase is not None:
            self.phase.load_state_dict(state["phase"])
            self.phase.done, self.phase.total = state["done"], state["total"]


Watcher = Callable[[Run, dict[str, float] | None], None]


def run_to_the_end(run: Run, watchers: Sequence[Watcher]) -> None:
    """Do all phases.

    Args:
        run: new or resumed.
        watchers: each is called after every step with the run and the losses. Losses are passed
            every ``LOG_EVERY`` steps of a phase and at its end, otherwise ``None``, because reading
            them would stall the device.

    Raises:
        TrainingError: a loss, or in the end a network, is not finite.
    """
    try:
        _run_phases(run, watchers)
    except BaseException:
        # The networks are returned to the caller, so the phase must not keep hooks on them.
        if run.phase is not None:
            run.phase.abandon()
        raise
    require_finite(run)
    run.bench.accelerator.wait_for_everyone()


def _run_phases(run: Run, watchers: Sequence[Watcher]) -> None:
    unread = Unread()
    for losses in run.steps():
        assert run.phase is not None
        unread.add(losses)
        due = run.done % LOG_EVERY == 0 or run.phase.over
        read = unread.read(run.done) if due else None
        for watch in watchers:
            watch(run, read)


def require_finite(run: Run) -> None:
    """Refuse a run whose networks hold values that are not finite.

    Raises:
        TrainingError: it names the network and the first tensors.
    """
    changed = {} if run.phase is None else run.phase.trained()
    require_finite_networks({**changed, "student": run.bench.student}, run.done)
