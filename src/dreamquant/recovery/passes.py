"""Forward passes that stop at chosen places, so that many batches meet there.

A closed form for one layer needs that layer's inputs for all images, and the layers after it need
what the solved layer makes of them. Running the network anew up to every layer costs the square of
its depth; keeping every activation costs its memory. Here each batch has a forward pass of its
own, in a thread that waits at the layer: each network runs once, and what is kept is what a
forward pass keeps at that place. Only one thread runs at any time, so results do not depend on
scheduling.
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
    """Where a pass waits.

    Attributes:
        place: equal for all passes that wait for the same thing.
        seen: what the pass hands out there.
    """

    place: Hashable
    seen: Any


class _Abandoned(BaseException):
    """Ends a pass that nobody will let go on; no ``Exception``, so that no network catches it."""


class Pass:
    """One forward pass in a thread of its own, without gradients.

    Args:
        forward: called with no arguments; whatever it runs may call :meth:`stop` of
            :func:`current`.

    Attributes:
        met: places that whoever stops the pass has stopped it at.
        notes: whatever they keep of the pass.
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
        """Let the pass run to its next stop, or to its end: ``None``.

        Raises:
            Exception: whatever the forward pass raised.
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
        """End the pass where it is."""
        if self._thread.is_alive():
            self._answers.put(_Abandoned())
            self._thread.join()
        self._over = True

    def stop(self, place: Hashable, seen: Any) -> None:
        """Wait here; called from within the pass."""
        self._stops.put(Stop(place, seen))
        self._wait()


def current() -> Pass | None:
    """The pass that this code runs in, if any."""
    return getattr(_here, "current", None)


@contextmanager
def passes(forwards: Sequence[Callable[[], Any]]) -> Iterator[list[Pass]]:
    """Passes that are ended, wherever they are, when the context is left."""
    made = [Pass(forward) for forward in forwards]
    try:
        yield made
    finally:
        for each in made:
            each.close()


def advance_all(together: Sequence[Pass]) -> tuple[Hashable, list[Any]] | None:
    """Let all passes run to their next stop.

    Returns:
        The place, the same for all, and what each sees there; ``None`` when all have ended.

    Raises:
        RuntimeError: they came to different places: the network's forward pass varies.
    """
    stops = [each.advance() for each in together]
    places = {None if stop is None else stop.place for stop in stops}
    if len(places) > 1:
        raise RuntimeError(f"passes of the same network came to different places: {places}")
    first = stops[0]
    if first is None:
        return None
    return first.place, [stop.seen for stop in stops if stop is not None]
