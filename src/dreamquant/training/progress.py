"""What a person sees of a run: a live bar on a terminal, one quiet line per phase elsewhere."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeRemainingColumn,
)

from dreamquant.training.loop import Training


class ProgressDisplay:
    """Shows phase, losses, speed, time left and the latest accuracy on standard error.

    Args:
        total: iterations of the run.
        done: of them, before this process.
        quiet: show nothing at all.
    """

    def __init__(self, total: int, *, done: int = 0, quiet: bool = False) -> None:
        self.console = Console(stderr=True, quiet=quiet)
        self.total, self.done = total, done
        self.accuracy = ""
        self.phase = ""
        self.images = 0
        self.started = time.monotonic()
        self.bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[detail]}"),
            console=self.console,
            disable=quiet or not self.console.is_terminal,
        )

    def __enter__(self) -> ProgressDisplay:
        self.bar.start()
        self.task = self.bar.add_task("starting", total=self.total, completed=self.done, detail="")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.bar.stop()

    def say(self, line: str) -> None:
        """Print one line above the bar."""
        self.console.print(line, highlight=False)

    def __call__(self, training: Training, losses: dict[str, float] | None) -> None:
        """Take note of an iteration."""
        self.images += training.recipe.schedule.batch
        phase = "student learns" if training.student_learns else "generator warms up"
        if phase != self.phase:
            self._enter_phase(phase, training.iteration)
        self.bar.update(self.task, completed=training.iteration)
        if losses is not None:
            self.bar.update(self.task, detail=self._detail(losses))

    def note_accuracy(self, text: str, iteration: int) -> None:
        """Show the latest measured accuracy."""
        self.accuracy = text
        if not self.console.is_terminal:
            self.say(f"  {text} after {iteration} of {self.total} iterations")

    def _enter_phase(self, phase: str, iteration: int) -> None:
        self.phase = phase
        self.bar.update(self.task, description=phase)
        if not self.console.is_terminal:
            self.say(f"{phase} from iteration {iteration} of {self.total}")

    def _detail(self, losses: dict[str, float]) -> str:
        speed = self.images / max(time.monotonic() - self.started, 1e-9)
        shown = " ".join(f"{name.split('/')[1]} {value:.3g}" for name, value in losses.items())
        return f"{speed:.0f} images/s · {shown} {'· ' + self.accuracy if self.accuracy else ''}"
