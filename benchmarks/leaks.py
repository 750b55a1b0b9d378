"""Memory and file handles over thousands of iterations of a run, everything it writes included."""

from __future__ import annotations

import gc
import statistics
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from unittest.mock import patch

import psutil
import torch

import tiny
from dreamquant import Method
from dreamquant.jobs import job as pipeline
from dreamquant.methods import METHODS
from dreamquant.training.phase import Run, Watcher, run_to_the_end
from presets import on_batches

_TENSORS = (torch.Tensor, torch.nn.Parameter)


@dataclass
class Levels:
    """Memory and handles of a run after a number of iterations.

    Attributes:
        iterations: of each reading.
        resident: bytes of the process.
        tensors: that are alive.
        files: that are open.
    """

    iterations: list[int] = field(default_factory=list)
    resident: list[int] = field(default_factory=list)
    tensors: list[int] = field(default_factory=list)
    files: list[int] = field(default_factory=list)

    def slope(self, values: list[int]) -> float:
        """Growth per iteration, by least squares over the later half, when caches are full."""
        half = len(self.iterations) // 2
        line = statistics.linear_regression(self.iterations[half:], values[half:])
        return line.slope

    def usual_growth(self, values: list[int]) -> float:
        """Growth per iteration between neighbouring readings, the median over the later half.

        A leak grows between any two; an allocator takes a step now and then, which in a short run
        would tilt a line.
        """
        half = len(self.iterations) // 2
        readings = zip(self.iterations[half:], values[half:], strict=True)
        return statistics.median((b - a) / (j - i) for (i, a), (j, b) in pairwise(readings))


def watch(out: Path, iterations: int, every: int, *beside: Watcher) -> Levels:
    """Run a job, and read its levels at intervals.

    Args:
        out: its result folder.
        iterations: of it.
        every: so many, a reading.
        beside: further watchers.
    """
    levels = Levels()

    def read(run: Run, losses: dict[str, float] | None) -> None:
        if run.done % every:
            return
        gc.collect()
        process = psutil.Process()
        levels.iterations.append(run.done)
        levels.resident.append(process.memory_info().rss)
        levels.tensors.append(sum(type(one) in _TENSORS for one in gc.get_objects()))
        levels.files.append(process.num_fds())

    with patch.object(pipeline, "run_to_the_end", _watched(run_to_the_end, (*beside, read))):
        tiny.job(out, iterations, _of_few_images())
    return levels


def _of_few_images() -> Method:
    """AdaDFQ on batches of four, since what leaks does not depend on their size."""
    method = METHODS["adadfq"]
    return replace(method, presets={"quick": on_batches(method.presets["quick"], 4)})


def _watched(run: Callable[..., None], more: tuple[Watcher, ...]) -> Callable[..., None]:
    return lambda begun, watchers: run(begun, [*watchers, *more])
