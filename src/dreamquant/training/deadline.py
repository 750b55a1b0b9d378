"""A run's deadline, and the number of steps that a phase can take before it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dreamquant.training.phase import Phase


class Deadline:
    """Counts down the seconds of all phases, and fits the lengths of phases to the remaining time.

    Args:
        seconds: from now, for all phases; steps after the phases do not count.
    """

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds
        self._phase: Phase | None = None
        self._most, self._begun, self._until, self._before = 0, 0.0, 0.0, 0

    def left(self) -> float:
        """Seconds until the deadline; negative after it."""
        return self._end - time.monotonic()

    @property
    def passed(self) -> bool:
        """Whether the time for phases is over."""
        return self.left() <= 0

    def fit(self, phase: Phase) -> None:
        """Set the number of a phase's steps by the duration of its steps so far; called before each
        step.

        A resumed phase counts from its present step. At least one step is always done.

        Args:
            phase: the present one.
        """
        if not phase.stretches:
            return
        now = time.monotonic()
        if phase is not self._phase:
            self._phase, self._most = phase, phase.longest or phase.total
            self._begun, self._before = now, phase.done
            self._until = now + phase.share * max(self.left(), 0)
            return
        steps = phase.done - self._before
        pace = (now - self._begun) / steps
        more = int(max(self._until - now, 0) / pace)
        # A phase concludes in its last step, so it must know whether the next step is the last.
        phase.total = max(min(phase.done + more, self._most), phase.done + 1)
