"""Watchers of a run: history, intermediate accuracies, TensorBoard, checkpoints.

Each watcher is called after every iteration with the run and, at intervals, its losses.
"""

from __future__ import annotations

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
from dreamquant.quantization.student import Student
from dreamquant.training.phase import Run, require_finite


@dataclass
class Record:
    """The measurements of a run so far; part of the checkpoint and of the manifest.

    Attributes:
        losses: one entry for each reading: the iteration and every term's value.
        accuracy: one entry for each intermediate measurement: the iteration, top-1 in percent,
            number of images.
        ranges_only: evaluation of the student with ranges and before training.
        ranges_set_at: number of steps before this evaluation.
        seconds: time of training, without measurements, over all processes that continued each
            other.
        cpu_seconds: the same in processor time over all threads, which other work on the machine
            does not lengthen.
        iterations: length of the method, as resolved.
        plan: seconds of each phase according to the budget; empty without one.
        images: number of images that all steps used.
        phases: name, kind, precision, steps and seconds of each phase so far.
        dynamics: with ``--diagnostics``, one entry for each reading, see
            :class:`dreamquant.jobs.dynamics.Dynamics`.
        features: features of the batch that the next reading is compared with, (B, F), on the CPU.
    """

    losses: list[dict[str, float]] = field(default_factory=list)
    accuracy: list[dict[str, float]] = field(default_factory=list)
    ranges_only: dict[str, Any] | None = None
    ranges_set_at: int | None = None
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    iterations: int | None = None
    plan: list[float] = field(default_factory=list)
    images: int = 0
    phases: list[dict[str, Any]] = field(default_factory=list)
    dynamics: list[dict[str, float | None]] = field(default_factory=list)
    features: Tensor | None = None


class History:
    """Writes losses and times into the record.

    Args:
        record: of the run.
        precision: of training.
    """

    def __init__(self, record: Record, precision: str = "32") -> None:
        self.record, self.precision = record, precision
        self.restart()

    def restart(self) -> None:
        """Restart the clock: time since the latest iteration does not count."""
        self._wall, self._cpu = time.monotonic(), time.process_time()

    def __call__(self, run: Run, losses: dict[str, float] | None) -> None:
        """Record a step."""
        wall, cpu = time.monotonic(), time.process_time()
        self._count(run, wall - self._wall)
        self.record.seconds += wall - self._wall
        self.record.cpu_seconds += cpu - self._cpu
        self.record.images += 0 if run.phase is None else run.phase.images
        self._wall, self._cpu = wall, cpu
        if losses:
            self.record.losses.append({"iteration": run.done, **losses})

    def _count(self, run: Run, seconds: float) -> None:
        phases, phase = self.record.phases, run.phase
        assert phase is not None
        if len(phases) <= run.index:
            phases.append(
                {
                    "name": phase.name,
                    "kind": phase.kind or phase.name,
                    "precision": self.precision if phase.in_training_precision else "32",
                    "iterations": 0,
                    "seconds": 0.0,
                }
            )
        phases[run.index]["iterations"] = phase.done
        phases[run.index]["seconds"] += seconds
        if phase.finding is not None:
            phases[run.index]["found"] = dict(phase.finding)


class Evaluations:
    """Measures the student once its ranges are set, and a few times during training.

    Intermediate accuracies are only shown: nothing is selected by them.

    Args:
        history: its record receives the figures.
        display: shows them.
        whole: evaluates the student on all images, before training.
        glance: evaluates it on few images; returns top-1 in percent and their number, or ``None``
            if there are no labels.
        looks: number of intermediate evaluations in a run.
    """

    def __init__(
        self,
        history: History,
        display: ProgressDisplay,
        whole: Callable[[Student], dict[str, Any] | None],
        glance: Callable[[Student], tuple[float, int] | None],
        looks: int = 10,
    ) -> None:
        self.history, self.record, self.display = history, history.record, display
        self.whole, self.glance, self.looks = whole, glance, looks

    def __call__(self, run: Run, losses: dict[str, float] | None) -> None:
        """Measure, if a measurement is due."""
        phase, student = run.phase, run.bench.student
        assert phase is not None
        if phase.over and self.record.ranges_set_at is None and student.ranges_set():
            self.record.ranges_set_at = run.done
            with self._aside():
                self.record.ranges_only = self.whole(student)
        every = max(phase.total // self.looks, 1)
        if not phase.learns or phase.done % every or phase.over:
            return
        with self._aside():
            seen = self.glance(student)
        if seen is None:
            return
        top1, n = seen
        self.record.accuracy.append({"iteration": run.done, "top1": top1, "n": n})
        self.display.note_accuracy(f"top-1 {top1:.1f} % of {n}", run.done)

    @contextmanager
    def _aside(self) -> Iterator[None]:
        """Show that the run waits, and do not count that as training."""
        with self.display.measuring():
            yield
        self.history.restart()


_FRACTION = 0.01  # largest fraction of the time for checkpoints
_SHORTEST, _LONGEST = 1.0, 60.0  # largest number of seconds between two checkpoints


class Checkpoints:
    """Saves the run at intervals; only the first process writes.

    Checkpoints are frequent if they are cheap, and at least one a minute is written.

    Args:
        folder: of the checkpoint.
        write: writes bytes to a file atomically.
        configuration: settings that a later process must have to resume.
        record: saved with the run.
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

    def __call__(self, run: Run, losses: dict[str, float] | None) -> None:
        """Save, if a checkpoint is due and the losses have just been found finite."""
        if losses is not None and time.monotonic() >= self._due:
            self.save(run)

    def save(self, run: Run) -> None:
        """Save now.

        Raises:
            ResultError: the folder cannot be written.
            TrainingError: a network is not finite; the checkpoint made before is kept.
        """
        if not run.bench.accelerator.is_main_process:
            return
        started = time.monotonic()
        require_finite(run)
        state = {
            "configuration": self.configuration,
            "record": vars(self.record),
            "run": run.state_dict(),
            "threads": torch.get_num_threads(),
        }
        self.write(self.folder / STATE, encode(state))
        now = time.monotonic()
        self._due = now + min(max((now - started) / _FRACTION, _SHORTEST), _LONGEST)
