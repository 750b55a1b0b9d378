"""What happens beside the loop: history, accuracy on the way, TensorBoard, checkpoints.

Each watcher is called after every iteration with the run and, now and then, its losses.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dreamquant.jobs.checkpoint import STATE, encode
from dreamquant.jobs.progress import ProgressDisplay
from dreamquant.training.finite import require_finite_networks
from dreamquant.training.loop import Training


@dataclass
class Record:
    """What a run has measured so far; part of the checkpoint and of the manifest.

    Attributes:
        losses: one entry per reading: the iteration and every term's value.
        accuracy: one entry per measurement on the way: the iteration, top-1 in percent, images.
        ranges_only: evaluation of the student with ranges set and nothing learned.
        seconds: spent on training, measuring on the way left out, over all processes that took
            part in turn.
        cpu_seconds: the same as the processors count it, over all threads: what other work on the
            machine does not lengthen.
        iterations: of the whole run, as resolved.
        dynamics: with ``--diagnostics``, one entry per reading, see
            :class:`dreamquant.jobs.dynamics.Dynamics`.
        features: of the batch that the next reading is compared with, (B, F), on the CPU.
    """

    losses: list[dict[str, float]] = field(default_factory=list)
    accuracy: list[dict[str, float]] = field(default_factory=list)
    ranges_only: dict[str, Any] | None = None
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    iterations: int = 0
    dynamics: list[dict[str, float | None]] = field(default_factory=list)
    features: Tensor | None = None


class History:
    """Writes losses and time into the record."""

    def __init__(self, record: Record) -> None:
        self.record = record
        self.restart()

    def restart(self) -> None:
        """Count from now; what passed since the latest iteration is left out."""
        self._wall, self._cpu = time.monotonic(), time.process_time()

    def __call__(self, training: Training, losses: dict[str, float] | None) -> None:
        """Take note of an iteration."""
        wall, cpu = time.monotonic(), time.process_time()
        self.record.seconds += wall - self._wall
        self.record.cpu_seconds += cpu - self._cpu
        self._wall, self._cpu = wall, cpu
        if losses is not None:
            self.record.losses.append({"iteration": training.iteration, **losses})


class Evaluations:
    """Measures the student when its warm-up ends, and a few times on the way.

    The figures on the way are for watching: nothing is selected by them.

    Args:
        history: whose record takes the figures.
        display: shows them.
        whole: evaluates the student on all images, for ranges-only.
        glance: evaluates it on few; top-1 in percent and their number, or ``None`` where there
            are no labels.
        looks: how many glances a run takes.
    """

    def __init__(
        self,
        history: History,
        display: ProgressDisplay,
        whole: Callable[[Training], dict[str, Any] | None],
        glance: Callable[[Training], tuple[float, int] | None],
        looks: int = 10,
    ) -> None:
        self.history, self.record, self.display = history, history.record, display
        self.whole, self.glance, self.looks = whole, glance, looks

    def __call__(self, training: Training, losses: dict[str, float] | None) -> None:
        """Measure, if it is time to."""
        schedule, iteration = training.recipe.schedule, training.iteration
        if iteration == schedule.student_warmup:
            training.student.observe(False)
            with self._aside():
                self.record.ranges_only = self.whole(training)
        every = max(schedule.iterations // self.looks, 1)
        if iteration % every or not training.student_learns or iteration == schedule.iterations:
            return
        training.student.observe(False)
        with self._aside():
            seen = self.glance(training)
        if seen is None:
            return
        top1, n = seen
        self.record.accuracy.append({"iteration": iteration, "top1": top1, "n": n})
        self.display.note_accuracy(f"top-1 {top1:.1f} % of {n}", iteration)

    @contextmanager
    def _aside(self) -> Iterator[None]:
        """Show that the run waits, and do not count that as training."""
        with self.display.measuring():
            yield
        self.history.restart()


class TensorBoardLog:
    """Losses and accuracies under stable names, in ``log/`` of the result folder."""

    def __init__(self, folder: Path, record: Record, done: int) -> None:
        # Imported here: it takes a second, which runs without a folder need not spend.
        from torch.utils.tensorboard import SummaryWriter

        # What a killed process wrote after the checkpoint comes again.
        self.writer = SummaryWriter(folder, purge_step=done + 1)
        self.record, self.written = record, len(record.accuracy)

    def __call__(self, training: Training, losses: dict[str, float] | None) -> None:
        """Write what is new."""
        for name, value in (losses or {}).items():
            self.writer.add_scalar(f"loss/{name}", value, training.iteration)
        for entry in self.record.accuracy[self.written :]:
            self.writer.add_scalar("accuracy/top1", entry["top1"], int(entry["iteration"]))
        self.written = len(self.record.accuracy)

    def close(self) -> None:
        """Flush what is pending."""
        self.writer.close()


@contextmanager
def told_once() -> Iterator[None]:
    """What TensorBoard's thread cannot write is raised by the log; the thread prints it no more."""
    usual = threading.excepthook

    def hook(failed: threading.ExceptHookArgs) -> None:
        if not (isinstance(failed.exc_value, OSError) and _is_tensorboards(failed.thread)):
            usual(failed)

    threading.excepthook = hook
    try:
        yield
    finally:
        for thread in filter(_is_tensorboards, threading.enumerate()):
            thread.join(_LAST_WORDS)
        threading.excepthook = usual


_LAST_WORDS = 1.0  # seconds that a thread which failed has to end in


def _is_tensorboards(thread: threading.Thread | None) -> bool:
    return type(thread).__module__.startswith("tensorboard.")


_SHARE = 0.01  # of the time that checkpoints may take
_SHORTEST, _LONGEST = 1.0, 60.0  # seconds between two


class Checkpoints:
    """Saves the run every now and then; the only process to write is the first.

    Often where that is cheap, and at least once a minute.

    Args:
        folder: of the checkpoint.
        write: puts bytes into a file atomically.
        configuration: what a later process must ask for to resume.
        record: saved along.
    """

    def __init__(
        self,
        folder: Path,
        write: Callable[[Path, bytes], None],
        configuration: Mapping[str, Any],
        record: Record,
    ) -> None:
        self.folder, self.write = folder, write
        self.configuration, self.record = dict(configuration), record
        self._due = time.monotonic() + _SHORTEST

    def __call__(self, training: Training, losses: dict[str, float] | None) -> None:
        """Save, if it is time to and the losses were just found finite."""
        if losses is not None and time.monotonic() >= self._due:
            self.save(training)

    def save(self, training: Training) -> None:
        """Save now.

        Raises:
            ResultError: the folder cannot be written.
            TrainingError: a network is not finite; the checkpoint made before is kept.
        """
        if not training.accelerator.is_main_process:
            return
        started = time.monotonic()
        require_finite_networks(training)
        state = {
            "configuration": self.configuration,
            "record": vars(self.record),
            "training": training.state_dict(),
            "threads": torch.get_num_threads(),
        }
        self.write(self.folder / STATE, encode(state))
        now = time.monotonic()
        self._due = now + min(max((now - started) / _SHARE, _SHORTEST), _LONGEST)
