"""Phases: a run is a list of them, each made from what the ones before it became."""

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
    """A stretch of a run in which every step is of one kind.

    Its constructor is cheap and changes nothing; work begins with the first step. A phase that was
    half done goes on from the student's own state and :meth:`state_dict`.

    Attributes:
        name: shown to the user.
        kind: what the phase is one of, where a run has several; they are told as one.
        total: steps.
        done: steps so far.
        images: that a step takes; 0 where it takes none.
        learns: whether the student is trained.
        in_training_precision: whether its steps run in the precision that was asked for; others run
            in float32.
        stretches: whether its steps grow with the run's; otherwise the network gives their number.
        finding: what it found out, for the manifest; ``None`` where that is not what it is for.
        longest: steps that a deadline may stretch it to; ``None`` for those it has.
        share: fraction of the time left, when it begins, that its steps are fitted to where the
            run has a deadline.
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
        """Leave what later phases read as it is now: the run is timed, and not done."""

    def abandon(self) -> None:
        """Let go of both networks: no further step will come."""

    def trained(self) -> Mapping[str, nn.Module]:
        """Networks that the step changes, beside the student: all must stay finite."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """What a later process needs to go on, beside the student; tensors and plain values."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over a state from :meth:`state_dict`."""


class Run:
    """The phases of a run, one after another, and where it stands.

    Args:
        bench: what the phases work on.
        phases: made one by one: a later one sees what the earlier ones became.
        plan: seconds of each phase, where they are to share a deadline in these proportions.

    Attributes:
        phase: the present one; of a run that is over, the last.
        index: its number.
        ended: name and steps of each phase that is over.
        cut: whether it ends before its phases do, with the result that the bench falls back on.
    """

    def __init__(self, bench: Bench, phases: Iterator[Phase], plan: Sequence[float] = ()) -> None:
        self.bench, self._phases, self._plan = bench, phases, plan
        self.cut = False
        self.phase: Phase | None = None
        self.index = -1
        self.ended: list[tuple[str, int]] = []

    @property
    def done(self) -> int:
        """Steps so far, over all phases."""
        now = 0 if self.phase is None or self.over_at_end else self.phase.done
        return sum(steps for _, steps in self.ended) + now

    @property
    def over_at_end(self) -> bool:
        """Whether the present phase is on record among those that ended."""
        return len(self.ended) > self.index >= 0

    @property
    def deadline(self) -> Deadline | None:
        """Of all phases together."""
        return self.bench.deadline

    def steps(self) -> Iterator[Losses]:
        """Do all that is left, step by step."""
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
        """Whether the run is out of time, or cut, and there is a result to end with."""
        late = self.deadline is not None and self.deadline.passed
        if self.bench.fall_back is None or not (self.cut or late):
            return False
        self.cut = True
        assert self.phase is not None
        self.phase.abandon()
        self.bench.fall_back()
        return True

    def _end(self) -> None:
        # A run that is over may be asked for its steps again, and has none left.
        if self.phase is not None and not self.over_at_end:
            self.ended.append((self.phase.name, self.phase.total))

    def _next(self) -> bool:
        """Make the next phase that has steps; whether there is one."""
        phase = next((phase for phase in self._phases if phase.total), None)
        if phase is None:
            return False
        self.phase, self.index = phase, self.index + 1
        if rest := sum(self._plan[self.index :]):
            phase.share = self._plan[self.index] / rest
        return True

    def skip_to_end_of_phase(self) -> bool:
        """Leave the present phase as it is and make the next; whether there is one."""
        self._end()
        return self._next()

    def state_dict(self) -> dict[str, Any]:
        """All that a later process needs to go on bit for bit; tensors and plain values."""
        phase = self.phase
        return {
            "bench": self.bench.state_dict(),
            "index": self.index,
            "done": 0 if phase is None else phase.done,
            "total": 0 if phase is None else phase.total,
            "phase": {} if phase is None else phase.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over a state from :meth:`state_dict`; phases that ended are made and not run."""
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
        run: fresh or resumed.
        watchers: each called after every step with the run and, every ``LOG_EVERY`` steps of a
            phase and at its end, the losses (otherwise ``None``: reading them would stall the
            device).

    Raises:
        TrainingError: a loss is not finite, or in the end a network.
    """
    try:
        _run_phases(run, watchers)
    except BaseException:
        # Both networks are the caller's again: nothing of the phase may hang on to them.
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
    """Refuse a run whose networks hold what is not a number.

    Raises:
        TrainingError: it names the network and the first tensors.
    """
    changed = {} if run.phase is None else run.phase.trained()
    require_finite_networks({**changed, "student": run.bench.student}, run.done)
