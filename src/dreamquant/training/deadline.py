"""When a run has to be over, and how long a phase may take until then."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dreamquant.training.phase import Phase


class Deadline:
    """Counts down the seconds that phases may take; lengths of phases are fitted to what is left.

    Args:
        seconds: from now, for all phases; what comes after them is not part of it.
    """

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds
        self._phase: Phase | None = None
        self._most, self._begun, self._until, self._before = 0, 0.0, 0.0, 0

    def left(self) -> float:
        """Seconds until it; negative afterwards."""
        return self._end - time.monotonic()

    @property
    def passed(self) -> bool:
        """Whether phases are out of time."""
        return self.left() <= 0

    def fit(self, phase: Phase) -> None:
        """Set a phase's steps anew, by how long the ones so far took; called before each step.

        A phase that was resumed counts from where it is. One step is always done.

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
        # The coming step may be the last one, in which a phase concludes: it has to know.
        phase.total = max(min(phase.done + more, self._most), phase.done + 1)
