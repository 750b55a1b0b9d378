"""Display of a run: a live bar on a terminal, and one line for each phase elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Column

from dreamquant.training.phase import Phase, Run


class ProgressDisplay:
    """Shows phase, time left, the latest accuracy, speed and losses on standard error.

    Args:
        quiet: show nothing at all.
        verbose: show losses and accuracies line by line too.
    """

    def __init__(self, *, quiet: bool = False, verbose: bool = False) -> None:
        self.verbose = verbose
        self.console = Console(stderr=True, quiet=quiet)
        self.accuracy = ""
        self.phase, self.index = "", -1
        self.images = 0
        self.started = time.monotonic()
        self.bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=12),
            MofNCompleteColumn(),
            TimeRemainingColumn(compact=True),
            # This column takes the remaining width, so that a narrow terminal cuts only the losses.
            TextColumn(
                "{task.fields[detail]}",
                table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis"),
            ),
            console=self.console,
            expand=True,
            disable=quiet or not self.console.is_terminal,
        )

    def __enter__(self) -> ProgressDisplay:
        self.bar.start()
        self.task = self.bar.add_task("starting", total=None, detail="")
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
        self.console.print(line, highlight=False, soft_wrap=True)

    def __call__(self, run: Run, losses: dict[str, float] | None) -> None:
        """Show a step."""
        phase = run.phase
        assert phase is not None
        self.images += phase.images
        if run.index != self.index:
            self.index = run.index
            self._enter_phase(phase)
        self.bar.update(self.task, completed=phase.done, total=phase.total)
        if phase.over and phase.finding is not None:
            self.say(_found(phase.finding))
        if losses:
            self.bar.update(self.task, detail=self._detail(losses))
            if self.verbose:
                self.say(f"  {phase.done} of {phase.total}: {self._detail(losses)}")

    @contextmanager
    def measuring(self) -> Iterator[None]:
        """Show that the run waits for a measurement."""
        # As wide as the name of the phase, so that the bar does not move.
        self.bar.update(self.task, description="measuring".ljust(len(self.phase)))
        yield
        self.bar.update(self.task, description=self.phase)

    def note_accuracy(self, text: str, iteration: int) -> None:
        """Show the latest measured accuracy."""
        self.accuracy = text
        if self.verbose:
            self.say(f"  {text} after {iteration} iterations")

    def _enter_phase(self, phase: Phase) -> None:
        self.phase = phase.name
        # The images of the last step were made before this time.
        self.images, self.started = 0, time.monotonic()
        self.bar.reset(self.task, total=phase.total, description=phase.name)
        if not self.console.is_terminal:
            self.say(f"{phase.name}: {phase.total} {'step' if phase.total == 1 else 'steps'}")

    def _detail(self, losses: dict[str, float]) -> str:
        speed = self.images / max(time.monotonic() - self.started, 1e-9)
        rate = f"{speed:.0f} images/s" if self.images else ""
        shown = " ".join(f"{name.split('/')[1]} {value:.3g}" for name, value in losses.items())
        return " · ".join(part for part in (self.accuracy, rate, shown) if part)


def _found(finding: Mapping[str, Any]) -> str:
    if "input_range" in finding:
        return f"the input's range ends at {finding['input_range']:.3g}: its scale is not known"
    kept = "kept" if finding["kept"] else "the student before is better and stays"
    return f"{finding['stage']}: agreement of outputs {finding['agreement']:.1f} %; {kept}"


def announce(phase: str, *, quiet: bool = False) -> None:
    """Print one line for a phase after training, if no bar shows it."""
    console = Console(stderr=True, quiet=quiet)
    if not console.is_terminal:
        console.print(phase, highlight=False, soft_wrap=True)


@contextmanager
def counting(what: str, total: int, *, quiet: bool = False) -> Iterator[Callable[[int], None]]:
    """A bar on a terminal's standard error, which disappears when it is full.

    Args:
        what: name of the work.
        total: number of items.
        quiet: show nothing.

    Yields:
        A function to call with the number of items that were done.
    """
    console = Console(stderr=True, quiet=quiet)
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeRemainingColumn(compact=True),
        console=console,
        transient=True,
        disable=quiet or not console.is_terminal,
    )
    with bar:
        task = bar.add_task(what, total=total)
        yield lambda count: bar.advance(task, count)


def tell(line: str, *, quiet: bool = False) -> None:
    """Print one line that is important in every mode."""
    Console(stderr=True, quiet=quiet).print(line, highlight=False, soft_wrap=True)
