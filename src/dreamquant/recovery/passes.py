"""Forward passes that wait at chosen places, so that many batches can be treated there together.

A closed form for one layer needs the inputs of this layer for all images, and the later layers need
the outputs of the solved layer. Running the network anew up to every layer would take time that
grows with the square of the depth; keeping every activation would take too much memory. Here each
batch has its own forward pass, in a thread that waits at the layer. Each network runs once, and
memory holds what a forward pass holds at that place. Only one thread runs at any time, so results
do not depend on scheduling.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from queue import SimpleQueue
from typing import Any, NamedTuple

import torch

_here = threading.local()


class Stop(NamedTuple):
    """A place where a pass waits.

    Attributes:
        place: the same for all passes that wait at the same place.
        seen: the values that the pass gives out there.
    """

    place: Hashable
    seen: Any


class _Abandoned(BaseException):
    """Ends a pass that is no longer needed; no ``Exception``, so that networks do not catch it."""


class Pass:
    """One forward pass in a thread of its own, without gradients.

    Args:
        forward: called without arguments; code inside it may call :meth:`stop` of :func:`current`.

    Attributes:
        met: places where the pass has already stopped.
        notes: for the caller's own records of this pass.
    """

    def __init__(self, forward: Callable[[], Any]) -> None:
        self._forward = forward
        self._stops: SimpleQueue[Stop | BaseException | None] = SimpleQueue()
        self._answers: SimpleQueue[BaseException | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._over = False
        self.met: set[Hashable] = set()
        self.notes: dict[Any, Any] = {}

    def _run(self) -> None:
        _here.current = self
        try:
            self._wait()
            with torch.no_grad():
                self._forward()
        except _Abandoned:
            return
        except BaseException as error:
            self._stops.put(error)
        else:
            self._stops.put(None)

    def _wait(self) -> None:
        answer = self._answers.get()
        if answer is not None:
            raise answer

    def advance(self) -> Stop | None:
        """Let the pass run to its next stop; ``None`` when it has ended.

        Raises:
            Exception: the exception of the forward pass, if it failed.
        """
        if self._over:
            return None
        if not self._thread.is_alive():
            self._thread.start()
        self._answers.put(None)
        stop = self._stops.get()
        if not isinstance(stop, Stop):
            self._over = True
            self._thread.join()
        if isinstance(stop, BaseException):
            raise stop
        return stop

    def close(self) -> None:
        """End the pass at its present place."""
        if self._thread.is_alive():
            self._answers.put(_Abandoned())
            self._thread.join()
        self._over = True

    def stop(self, place: Hashable, seen: Any) -> None:
        """Wait here; called by code that runs inside the pass."""
        self._stops.put(Stop(place, seen))
        self._wait()


def current() -> Pass | None:
    """The pass in which this code runs, if any."""
    return getattr(_here, "current", None)


@contextmanager
def passes(forwards: Sequence[Callable[[], Any]]) -> Iterator[list[Pass]]:
    """Start passes, and end all of them when the context is left."""
    made = [Pass(forward) for forward in forwards]
    try:
        yield made
    finally:
        for each in made:
            each.close()


def advance_all(together: Sequence[Pass]) -> tuple[Hashable, list[Any]] | None:
    """Let all passes run to their next stop.

    Returns:
        The place, which is the same for all, and the values of each pass there; ``None`` when all
            have ended.

    Raises:
        RuntimeError: the passes stopped at different places: the network's forward pass varies.
    """
    stops = [each.advance() for each in together]
    places = {None if stop is None else stop.place for stop in stops}
    if len(places) > 1:
        raise RuntimeError(f"passes of the same network stopped at different places: {places}")
    first = stops[0]
    if first is None:
        return None
    return first.place, [stop.seen for stop in stops if stop is not None]
