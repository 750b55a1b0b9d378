"""Ctrl-C and termination: they wait until an iteration is over, so that its state can be saved."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

from dreamquant import distributed
from dreamquant.training.phase import Run

_HELD = (signal.SIGINT, signal.SIGTERM)


class HeldSignals:
    """Holds the first signal back until it is called as the last watcher of an iteration.

    A second signal goes through at once. Signals that would end the process without asking Python
    are left alone, and so are all of them outside the main thread, which alone may handle them.
    A run that has a result to fall back on ends with that; a later resume finds it finished.
    Several processes stop after the same iteration, one whose losses are read, whichever of them
    the signal reached.

    Args:
        say: tells the user that the first one was heard, and what the run ends with.
        save: called before a signal is delivered.

    Attributes:
        waiting: whether one is held back.
    """

    def __init__(self, say: Callable[[str], None], save: Callable[[Run], None]) -> None:
        self._say, self._save = say, save
        self._handlers: dict[int, Callable[[int, FrameType | None], Any]] = {}
        self._held = 0
        self._saying: threading.Thread | None = None
        self.waiting = False

    def __enter__(self) -> HeldSignals:
        if threading.current_thread() is threading.main_thread():
            for number in _HELD:
                handler = signal.getsignal(number)
                if callable(handler):
                    self._handlers[number] = handler
                    signal.signal(number, self._hold)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        if self._saying is not None:
            self._saying.join()

    def __call__(self, run: Run, losses: dict[str, float] | None) -> None:
        """Deliver what is held back: an iteration is over."""
        if not self._stopping(run, losses):
            return
        self._save(run)
        if run.bench.fall_back is not None:
            run.cut = "as asked"
            self._say(f"ended early, {run.cut}: the result is the best student so far")
            return
        # The process that ends first may end the others.
        run.bench.accelerator.wait_for_everyone()
        if self.waiting:
            self._handlers[self._held](self._held, None)
        else:
            raise KeyboardInterrupt

    def _stopping(self, run: Run, losses: dict[str, float] | None) -> bool:
        alone = run.bench.accelerator.num_processes == 1
        if alone or losses is None:
            return alone and self.waiting
        with distributed.together():
            return distributed.anywhere(self.waiting, run.bench.device)

    def _hold(self, number: int, frame: FrameType | None) -> None:
        if self.waiting:
            self._handlers[number](number, frame)
            return
        self._held, self.waiting = number, True
        # The signal may arrive while this thread prints, and printing is not reentrant.
        words = "stopping after this iteration; once more stops at once, without saving"
        self._saying = threading.Thread(target=self._say, args=(words,))
        self._saying.start()
