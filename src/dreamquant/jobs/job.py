"""The phases of one run: train, measure, describe, and what a killed run left behind."""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from dreamquant.diagnostics.images import diagnose, observed
from dreamquant.diagnostics.looks import Looks
from dreamquant.errors import ResultError
from dreamquant.evaluation.data import open_images
from dreamquant.jobs import checkpoint
from dreamquant.jobs.budget import fit
from dreamquant.jobs.dynamics import Dynamics, over_time
from dreamquant.jobs.measurements import Measuring
from dreamquant.jobs.memory import sparing_memory
from dreamquant.jobs.progress import ProgressDisplay, announce
from dreamquant.jobs.settings import Running
from dreamquant.jobs.signals import HeldSignals
from dreamquant.jobs.watchers import (
    Checkpoints,
    Evaluations,
    History,
    Record,
    TensorBoardLog,
    told_once,
)
from dreamquant.methods.method import Recipe
from dreamquant.networks.load import Network
from dreamquant.quantization.layers import Student
from dreamquant.report.write import write_after_run
from dreamquant.results.files import make_folder, write_bytes, writing
from dreamquant.results.lock import alone_in
from dreamquant.results.manifest import MANIFEST, describe_machine, read_manifest
from dreamquant.results.result import (
    CHECKPOINT,
    LOG,
    REPORT,
    Result,
    Samples,
    open_result,
    require_no_result,
)
from dreamquant.training.loop import Training, Watcher, run
from dreamquant.training.step import Teacher


def plain(value: Mapping[str, Any]) -> dict[str, Any]:
    """The mapping as JSON would give it back: lists for tuples, names for keys."""
    result: dict[str, Any] = json.loads(json.dumps(value))
    return result


class Outcome(NamedTuple):
    """A run that is over.

    Attributes:
        student: as it ended.
        measured: for the manifest.
        samples: synthetic images.
        analysis: where accuracy went: each quantizer, and the answers that changed.
        diagnostics: what the papers diagnose; ``None`` where it was not asked for.
    """

    student: Student
    measured: dict[str, Any]
    samples: Samples
    analysis: dict[str, Any]
    diagnostics: dict[str, Any] | None


class Job:
    """One run: a teacher, its student, and a recipe to train it by.

    Args:
        network: the teacher.
        student: as it starts.
        recipe: how it learns.
        running: how; without images to measure on, agreement on synthetic ones is measured alone.
        diagnostics: whether to record what the papers diagnose.

    Raises:
        DataError: the images cannot be read.
        NetworkError: the network lacks what the recipe or the diagnostics read.
    """

    def __init__(
        self,
        network: Network,
        student: Student,
        recipe: Recipe,
        running: Running,
        *,
        diagnostics: bool = False,
    ) -> None:
        self.network, self.recipe, self.running = network, recipe, running
        self.images = None if running.data is None else open_images(running.data, network.input)
        self.accelerator = running.accelerator
        self.quiet = running.quiet or not self.accelerator.is_main_process
        self.record = Record()
        device = self.accelerator.device
        example = torch.zeros(2, *network.input.shape, device=device)
        self.student = student.to(device)
        self.teacher = Teacher(network.module.to(device), example, recipe.taps)
        self.measuring = Measuring(
            self.teacher.network,
            self.images,
            classes=network.input.num_classes,
            seed=running.seed,
            device=device,
        )
        self.observed = observed(network.module, example) if diagnostics else None

    def result(
        self,
        folder: Path | None,
        configuration: Mapping[str, Any],
        describe: Callable[[Outcome], Mapping[str, Any]],
        *,
        architecture: nn.Module,
    ) -> Result:
        """Train, measure, and save where there is a folder.

        A run that is resumed goes on from the checkpoint there, or returns the result.

        Args:
            folder: of the result.
            configuration: that a later process must share to resume.
            describe: the manifest of a run that is over.
            architecture: of the student; its weights do not matter.

        Raises:
            ResultError: the folder cannot take this run, or another is at work in it.
            TrainingError: what is to be resumed was another run; a loss is not finite; or memory
                does not suffice.
            KeyboardInterrupt: after the run was saved, unless the user did not wait for that.
        """
        with alone_in(folder if self.accelerator.is_main_process else None):
            if finished := self._finished(folder, configuration, architecture):
                return finished
            outcome = self._complete(folder, configuration)
            return self._saved(outcome, describe(outcome), folder)

    def _complete(self, folder: Path | None, configuration: Mapping[str, Any]) -> Outcome:
        running = self.running
        saved = open_folder(folder, configuration, resume=running.resume)
        with sparing_memory(self.accelerator.device):
            if running.seconds is not None and saved is None:
                self._fit_budget(running.started + running.seconds - time.monotonic())
            training = self._begun(folder, saved)
            before = self.record.seconds
            self._train(training, folder, configuration)
            announce("measuring", quiet=self.quiet)
            measured = self.measuring.finish(training, self.record.ranges_only, quiet=self.quiet)
            samples, analysis = self.measuring.samples(training), self.measuring.analyse(training)
            diagnosed = self._diagnose(training)
        timings = {
            "training_seconds": self.record.seconds,
            "training_cpu_seconds": self.record.cpu_seconds,
            "seconds": before + time.monotonic() - running.started,
            "iterations": training.iteration,
        }
        measured = {
            **measured,
            **self._describe(),
            "timings": timings,
            "configuration": dict(configuration),
        }
        return Outcome(training.student, measured, samples, analysis, diagnosed)

    def _saved(self, outcome: Outcome, manifest: Mapping[str, Any], folder: Path | None) -> Result:
        result = Result(
            outcome.student.cpu(),
            plain(manifest),
            outcome.samples,
            self.network.module.cpu(),
            outcome.diagnostics,
            plain(outcome.analysis),
            after_save=write_after_run,
        )
        if folder is not None and self.accelerator.is_main_process:
            announce("saving", quiet=self.quiet)
            result.save(folder)
        return result

    def _finished(
        self, folder: Path | None, configuration: Mapping[str, Any], architecture: nn.Module
    ) -> Result | None:
        """The result in the folder, where the run that is to go on was over already."""
        if not self.running.resume or folder is None or not (folder / MANIFEST).exists():
            return None
        manifest = read_manifest(folder)
        checkpoint.require_same_run(manifest.get("configuration", {}), configuration, folder)
        result = open_result(folder, network=architecture)
        result.teacher, result.after_save = self.network.module.cpu(), write_after_run
        concluded = (folder / REPORT).exists() and not (folder / CHECKPOINT).exists()
        if self.accelerator.is_main_process and not concluded:
            result.conclude(folder)
        return result

    def _fit_budget(self, seconds: float) -> None:
        """Scale the schedule to the speed of this machine."""
        schedule = fit(
            self.recipe.schedule, seconds, lambda: self._training(copy.deepcopy(self.student))
        )
        self.recipe = replace(self.recipe, schedule=schedule)

    def _begun(self, folder: Path | None, saved: Mapping[str, Any] | None) -> Training:
        """A run as it starts, or as it was saved."""
        if folder is not None and saved is not None:
            with checkpoint.fitting(folder / CHECKPOINT):
                return self._restored(saved)
        self.record.iterations = self.recipe.schedule.iterations
        return self._training(self.student)

    def _restored(self, saved: Mapping[str, Any]) -> Training:
        self.record = Record(**saved["record"])
        schedule = self.recipe.schedule.scaled(self.record.iterations)
        self.recipe = replace(self.recipe, schedule=schedule)
        training = self._training(self.student)
        training.load_state_dict(saved["training"])
        return training

    def _train(
        self, training: Training, folder: Path | None, configuration: Mapping[str, Any]
    ) -> None:
        display = ProgressDisplay(
            self.recipe.schedule.iterations,
            done=training.iteration,
            quiet=self.quiet,
            verbose=self.running.verbose,
        )
        with display:
            self._run(training, display, folder, configuration)

    def _run(
        self,
        training: Training,
        display: ProgressDisplay,
        folder: Path | None,
        configuration: Mapping[str, Any],
    ) -> None:
        history = History(self.record)
        watchers: list[Watcher] = [
            history,
            Evaluations(history, display, self.measuring.ranges, self.measuring.glance),
            display,
        ]
        if self.observed is not None:
            watchers.append(Dynamics(self.record, self.observed))
        if folder is None:
            run(training, watchers)
            return
        saving = Checkpoints(folder / CHECKPOINT, write_bytes, configuration, self.record)
        signals = HeldSignals(display.say, saving.save)
        if self.accelerator.is_main_process:
            make_folder(folder / CHECKPOINT)
        with told_once(), self._log_in(folder / LOG, training.iteration) as log, signals:
            run(training, [*watchers, *log, saving, signals])
        # What comes now, measuring, takes a while and may be stopped or fail too.
        saving.save(training)

    @contextmanager
    def _log_in(self, folder: Path, done: int) -> Iterator[list[Watcher]]:
        """TensorBoard's log as a watcher; what its thread cannot write is told like all else."""
        if not self.accelerator.is_main_process:
            yield []
            return
        with writing(folder):
            log = TensorBoardLog(folder, self.record, done)
        looks = Looks(log.writer, self.network.input, self.running.seed)

        def write(training: Training, losses: dict[str, float] | None) -> None:
            with writing(folder):
                log(training, losses)
                looks(training, losses)

        try:
            yield [write]
        finally:
            with writing(folder):
                log.close()

    def _training(self, student: Student) -> Training:
        return Training(
            self.recipe,
            self.teacher,
            student,
            image=self.network.input.shape,
            classes=self.network.input.num_classes,
            seed=self.running.seed,
            accelerator=self.accelerator,
            compiled=self.running.compiled,
            accumulate=self.running.accumulate,
        )

    def _diagnose(self, training: Training) -> dict[str, Any] | None:
        """What ``diagnostics.json`` holds; ``None`` where it was not asked for."""
        if self.observed is None:
            return None
        return {
            "schema": 1,
            "dynamics": over_time(self.record, self.recipe.schedule),
            **diagnose(training, self.observed, self.images),
        }

    def _describe(self) -> dict[str, Any]:
        return {
            **describe_machine(self.accelerator.device),
            "history": {"losses": self.record.losses, "accuracy": self.record.accuracy},
        }


def open_folder(
    folder: Path | None, configuration: Mapping[str, Any], *, resume: bool
) -> dict[str, Any] | None:
    """Read the checkpoint in the result folder where the run is to go on; nothing is written yet.

    Returns:
        The checkpoint; ``None`` where the run starts, be it because an earlier one was killed
        before it had saved anything.

    Raises:
        ResultError: the folder holds a result, or an unfinished run that was not to be resumed.
        TrainingError: the checkpoint is damaged, or of another run.
    """
    if folder is None:
        if resume:
            raise ResultError("there is nothing to resume without a folder", where="--out")
        return None
    require_no_result(folder)
    if not (folder / CHECKPOINT / checkpoint.STATE).exists():
        return None
    if not resume:
        raise ResultError(
            f"{folder} holds an unfinished run",
            where="--out",
            remedy="add --resume to go on with it, or give another folder",
        )
    saved = checkpoint.read(folder / CHECKPOINT)
    checkpoint.require_same_run(saved["configuration"], configuration, folder / CHECKPOINT)
    return saved
