from __future__ import annotations

import io
import signal
import threading

import pytest

from dreamquant.jobs.signals import HeldSignals
from dreamquant.training.loop import run


def ignore(_):
    pass


class Interrupting:
    """Raises a signal in the middle of some iteration, where the noise is already drawn."""

    def __init__(self, training, at, number=signal.SIGINT, times=1):
        self.training, self.invent = training, training.invent
        self.at, self.number, self.times = at, number, times
        training.invent = self

    def __call__(self, *asked):
        made = self.invent(*asked)
        if self.training.iteration == self.at:
            for _ in range(self.times):
                signal.raise_signal(self.number)
        return made


def test_an_interrupt_waits_for_the_end_of_its_iteration(recipe_for, training_for):
    training, said, saved, seen = training_for(recipe_for()), [], [], []
    Interrupting(training, at=3)
    signals = HeldSignals(said.append, saved.append)

    def watch(training, losses):
        seen.append((training.iteration, signals.waiting))

    with pytest.raises(KeyboardInterrupt), signals:
        run(training, [watch, signals])
    assert seen == [(1, False), (2, False), (3, False), (4, True)]
    assert training.iteration == 4
    assert saved == [training]
    assert len(said) == 1
    assert "after this iteration" in said[0]


def test_a_second_interrupt_goes_through_at_once(recipe_for, training_for):
    training = training_for(recipe_for())
    Interrupting(training, at=3, times=2)
    with pytest.raises(KeyboardInterrupt), HeldSignals(ignore, ignore) as signals:
        run(training, [signals])
    assert training.iteration == 3


def test_termination_waits_too_where_python_handles_it(recipe_for, training_for):
    def leave(number, frame):
        raise SystemExit(number)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        training = training_for(recipe_for())
        Interrupting(training, at=1, number=signal.SIGTERM)
        with pytest.raises(SystemExit), HeldSignals(ignore, ignore) as signals:
            run(training, [signals])
        assert training.iteration == 2
    finally:
        signal.signal(signal.SIGTERM, before)


def test_handlers_are_put_back_however_it_ends():
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with HeldSignals(ignore, ignore):
        assert signal.getsignal(signal.SIGINT) != before[0]
    with pytest.raises(ValueError, match="x"), HeldSignals(ignore, ignore):
        raise ValueError("x")
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_other_threads_leave_signals_alone(recipe_for, training_for):
    training = training_for(recipe_for())
    before, errors = signal.getsignal(signal.SIGINT), []

    def work():
        try:
            with HeldSignals(ignore, ignore) as signals:
                signals(training, None)
                assert signal.getsignal(signal.SIGINT) == before
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert not errors


class InterruptedFile(io.RawIOBase):
    """A signal comes while its first bytes are written."""

    def __init__(self):
        super().__init__()
        self.written = b""

    def writable(self):
        return True

    def write(self, data):
        if not self.written:
            signal.raise_signal(signal.SIGINT)
        self.written += bytes(data)
        return len(data)


def test_a_signal_that_comes_while_something_is_printed_is_told_of_all_the_same():
    file = InterruptedFile()
    stream = io.TextIOWrapper(io.BufferedWriter(file), write_through=True)
    with HeldSignals(lambda words: print(words, file=stream, flush=True), ignore) as signals:
        print("a line", file=stream, flush=True)
        assert signals.waiting
    first, second = file.written.decode().splitlines()
    assert first == "a line"
    assert second.startswith("stopping after this iteration")
