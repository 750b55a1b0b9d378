from __future__ import annotations

import io
import signal
import threading

import pytest

from dreamquant.jobs.signals import HeldSignals
from tiny_runs import short_method, tiny_run


def ignore(_):
    pass


def interrupting(at, number=signal.SIGINT, times=1):
    """A run to which a signal comes in the middle of a step, when its noise is already drawn."""
    tiny = tiny_run(short_method())
    make = tiny.images.make

    def make_and_interrupt(asked):
        made = make(asked)
        if tiny.run.done == at:
            for _ in range(times):
                signal.raise_signal(number)
        return made

    tiny.images.make = make_and_interrupt
    return tiny


# 1 is in the generator's warm-up, 3 while the student learns.
@pytest.mark.parametrize("at", [1, 3])
def test_an_interrupt_waits_for_the_end_of_its_iteration(at):
    run, said, saved, seen = interrupting(at), [], [], []
    signals = HeldSignals(said.append, saved.append)

    def watch(run, losses):
        seen.append((run.done, signals.waiting))

    with pytest.raises(KeyboardInterrupt), signals:
        run.to_the_end(watch, signals)
    assert seen == [*((done, False) for done in range(1, at + 1)), (at + 1, True)]
    assert run.run.done == at + 1
    assert saved == [run.run]
    assert len(said) == 1
    assert "after this iteration" in said[0]


def test_a_second_interrupt_goes_through_at_once():
    run = interrupting(at=3, times=2)
    with pytest.raises(KeyboardInterrupt), HeldSignals(ignore, ignore) as signals:
        run.to_the_end(signals)
    assert run.run.done == 3


def test_termination_waits_too_where_python_handles_it():
    def leave(number, frame):
        raise SystemExit(number)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        run = interrupting(at=1, number=signal.SIGTERM)
        with pytest.raises(SystemExit), HeldSignals(ignore, ignore) as signals:
            run.to_the_end(signals)
        assert run.run.done == 2
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_run_with_a_result_to_fall_back_on_ends_with_it_and_says_so():
    said = []
    run = interrupting(at=1)
    run.run.bench.fall_back = lambda: None
    with HeldSignals(said.append, ignore) as signals:
        run.to_the_end(signals)
    assert run.run.done == 2
    assert run.run.cut == "as asked"
    assert said[-1] == "ended early, as asked: the result is the best student so far"


def test_handlers_are_put_back_however_it_ends():
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with HeldSignals(ignore, ignore):
        assert signal.getsignal(signal.SIGINT) != before[0]
    with pytest.raises(ValueError, match="x"), HeldSignals(ignore, ignore):
        raise ValueError("x")
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_other_threads_leave_signals_alone():
    run = tiny_run(short_method()).run
    before, errors = signal.getsignal(signal.SIGINT), []

    def work():
        try:
            with HeldSignals(ignore, ignore) as signals:
                signals(run, None)
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
