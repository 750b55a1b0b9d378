"""TensorBoard's log of a run, in ``log/`` of the result folder."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dreamquant.diagnostics.looks import Looks
from dreamquant.jobs.watchers import Record
from dreamquant.networks.spec import InputSpec
from dreamquant.results.files import writing
from dreamquant.synthesis.source import Images
from dreamquant.training.phase import Run, Watcher


class TensorBoardLog:
    """Losses and accuracies under stable names, in ``log/`` of the result folder."""

    def __init__(self, folder: Path, record: Record, done: int) -> None:
        # Imported here: it takes a second, which runs without a folder need not spend.
        from torch.utils.tensorboard import SummaryWriter

        # What a killed process wrote after the checkpoint comes again.
        self.writer = SummaryWriter(folder, purge_step=done + 1)
        self.record, self.written = record, len(record.accuracy)

    def __call__(self, run: Run, losses: dict[str, float] | None) -> None:
        """Write what is new."""
        for name, value in (losses or {}).items():
            self.writer.add_scalar(f"loss/{name}", value, run.done)
        for entry in self.record.accuracy[self.written :]:
            self.writer.add_scalar("accuracy/top1", entry["top1"], int(entry["iteration"]))
        self.written = len(self.record.accuracy)

    def close(self) -> None:
        """Flush what is pending."""
        self.writer.close()


@contextmanager
def log_in(
    folder: Path,
    record: Record,
    done: int,
    spec: InputSpec,
    seed: int,
    images: Images | None,
) -> Iterator[list[Watcher]]:
    """The watcher that writes the log; an error in writing it is raised as all others are.

    Args:
        folder: of the log.
        record: of the run.
        done: steps that were made before.
        spec: of the images.
        seed: of the noise that the images shown are made of.
        images: of the method; ``None`` where it has none.

    Raises:
        ResultError: the folder cannot be written.
    """
    with _without_traceback():
        with writing(folder):
            log = TensorBoardLog(folder, record, done)
        looks = Looks(log.writer, spec, seed, images)

        def write(run: Run, losses: dict[str, float] | None) -> None:
            with writing(folder):
                log(run, losses)
                looks(run, losses)

        try:
            yield [write]
        finally:
            with writing(folder):
                log.close()


@contextmanager
def _without_traceback() -> Iterator[None]:
    """An error in TensorBoard's thread is raised by the log; the thread does not print it too."""
    usual = threading.excepthook

    def hook(failed: threading.ExceptHookArgs) -> None:
        if not (isinstance(failed.exc_value, OSError) and _is_tensorboards(failed.thread)):
            usual(failed)

    threading.excepthook = hook
    try:
        yield
    finally:
        for thread in filter(_is_tensorboards, threading.enumerate()):
            thread.join(_GRACE)
        threading.excepthook = usual


_GRACE = 1.0  # seconds that a thread which failed has to end in


def _is_tensorboards(thread: threading.Thread | None) -> bool:
    return type(thread).__module__.startswith("tensorboard.")
