"""One job: set up, run the method's phases, measure, describe, save."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from dreamquant.diagnostics.images import diagnose, observed
from dreamquant.evaluation.data import EvaluationSet, open_images
from dreamquant.jobs import checkpoint
from dreamquant.jobs.bench import begin, set_up, throwaway
from dreamquant.jobs.budget import deadline_for, fit
from dreamquant.jobs.dynamics import Dynamics, over_time
from dreamquant.jobs.measurements import Measurements
from dreamquant.jobs.memory import sparing_memory
from dreamquant.jobs.outcome import Outcome, plain
from dreamquant.jobs.progress import ProgressDisplay, announce, tell
from dreamquant.jobs.resume import open_folder
from dreamquant.jobs.run_request import RunRequest
from dreamquant.jobs.signals import HeldSignals
from dreamquant.jobs.tensorboard import log_in
from dreamquant.jobs.watchers import Checkpoints, Evaluations, History, Record
from dreamquant.methods.method import Method
from dreamquant.networks.failures import naming_lines
from dreamquant.networks.load import Network
from dreamquant.quantization.student import Student
from dreamquant.report.write import write_after_run
from dreamquant.results.describe import describe_machine
from dreamquant.results.files import make_folder, write_bytes
from dreamquant.results.folder import CHECKPOINT, LOG, REPORT
from dreamquant.results.lock import alone_in
from dreamquant.results.manifest import MANIFEST, read_manifest
from dreamquant.results.reopen import open_result
from dreamquant.results.result import Result
from dreamquant.synthesis.probe import ProbeImages
from dreamquant.synthesis.source import Images
from dreamquant.training.phase import Run, Watcher, run_to_the_end


def images_given(request: RunRequest, network: Network) -> EvaluationSet | None:
    """The images of ``--data``.

    Raises:
        DataError: they cannot be read.
    """
    if request.data is None:
        return None
    return open_images(request.data, network.input, boxes=network.boxes)


class Job:
    """One run: a teacher, its student, and the method that recovers its accuracy.

    Args:
        network: the teacher.
        student: the student at the start.
        method: resolved, so that it has no presets and its add-ons have been joined.
        request: length, device and precision of the run.
        prepared: the float network that the student was made from, if it is not the teacher.
        images: with labels, to measure on, or ``None``.
        started: time of the user's command, by the monotonic clock.
        diagnostics: whether to record the problems that papers describe.

    Raises:
        NetworkError: the network lacks what the method or the diagnostics read.
    """

    def __init__(
        self,
        network: Network,
        student: Student,
        method: Method,
        request: RunRequest,
        *,
        images: EvaluationSet | None,
        started: float,
        prepared: nn.Module | None = None,
        diagnostics: bool = False,
    ) -> None:
        self.network, self.method, self.request = network, method, request
        self.started = started
        self.images = images
        self.accelerator = request.accelerator()
        self.quiet = request.quiet or not self.accelerator.is_main_process
        self.record = Record()
        floating = network.module if prepared is None else prepared
        self.bench = set_up(network, floating, student, method, request, self.accelerator)
        self.observed = observed(self.bench.teacher, self.bench.example()) if diagnostics else None

    def configuration(self) -> dict[str, Any]:
        """Settings that a resumed run must have in common with the stopped one."""
        return self.request.configuration(self.accelerator.device.type)

    def protocol(self) -> dict[str, Any]:
        """The settings of the request that belong to the protocol."""
        asked = self.request
        return {
            "seed": asked.seed,
            "precision": asked.precision,
            "accumulate": asked.micro_batches,
        }

    def result(
        self,
        folder: Path | None,
        configuration: Mapping[str, Any],
        describe: Callable[[Outcome], Mapping[str, Any]],
        *,
        architecture: nn.Module,
    ) -> Result:
        """Run or resume, measure, and save where there is a folder.

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
        request = self.request
        saved = open_folder(folder, configuration, resume=request.resume)
        failing = naming_lines(self.bench.teacher, self.bench.example())
        with failing, sparing_memory(self.accelerator.device):
            if request.seconds is not None:
                self._fit_budget(request.seconds, saved)
            run, images = self._begun(folder, saved)
            measurements = Measurements(self.bench, self.images, images)
            before = self.record.seconds
            self._run_phases(run, images, measurements, folder, configuration)
            return self._outcome(run, images, measurements, before, configuration)

    def _outcome(
        self,
        run: Run,
        images: Images | None,
        measurements: Measurements,
        before: float,
        configuration: Mapping[str, Any],
    ) -> Outcome:
        announce("measuring", quiet=self.quiet)
        student, record = self.bench.student, self.record
        measured = measurements.finish(student, record.ranges_only, quiet=self.quiet)
        samples, analysis = measurements.samples(), measurements.analyse(student, record.images)
        diagnosed = self._diagnose(images or ProbeImages(self.bench))
        timings = {
            "training_seconds": record.seconds,
            "training_cpu_seconds": record.cpu_seconds,
            "seconds": before + time.monotonic() - self.started,
            "iterations": run.done,
            "ended_early": run.cut,
        }
        found = {
            **measured,
            "phases": record.phases,
            "ranges_set_at": record.ranges_set_at,
            **self._describe(),
            "timings": timings,
            "configuration": dict(configuration),
        }
        return Outcome(student, found, samples, analysis, diagnosed)

    def _saved(self, outcome: Outcome, manifest: Mapping[str, Any], folder: Path | None) -> Result:
        result = Result(
            outcome.student.cpu(),
            plain(manifest),
            outcome.samples,
            self.network.module,
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
        """The result in the folder, if the run had already ended."""
        if not self.request.resume or folder is None or not (folder / MANIFEST).exists():
            return None
        manifest = read_manifest(folder)
        checkpoint.require_same_run(manifest["configuration"], configuration, folder)
        result = open_result(folder, network=architecture)
        result.teacher, result.after_save = self.network.module, write_after_run
        concluded = (folder / REPORT).exists() and not (folder / CHECKPOINT).exists()
        if self.accelerator.is_main_process and not concluded:
            result.conclude(folder)
        return result

    def _fit_budget(self, seconds: float, saved: Mapping[str, Any] | None) -> None:
        spent = time.monotonic() - self.started + (saved["record"]["seconds"] if saved else 0.0)
        images = 0 if self.images is None else len(self.images)
        deadline = deadline_for(
            self.bench, seconds - spent, images, partial(tell, quiet=self.quiet)
        )
        if saved is None:
            fitted = fit(self.method, deadline.left(), lambda m: begin(throwaway(self.bench), m)[0])
            self.method, self.record.plan = fitted
        self.bench.deadline = deadline

    def _begun(
        self, folder: Path | None, saved: Mapping[str, Any] | None
    ) -> tuple[Run, Images | None]:
        if folder is not None and saved is not None:
            with checkpoint.fitting(folder / CHECKPOINT):
                return self._restored(saved)
        self.record.iterations = self.method.iterations
        return begin(self.bench, self.method, self.record.plan)

    def _restored(self, saved: Mapping[str, Any]) -> tuple[Run, Images | None]:
        self.record = Record(**saved["record"])
        self.method = self.method.lasting(self.record.iterations)
        run, images = begin(self.bench, self.method, self.record.plan)
        run.load_state_dict(saved["run"])
        return run, images

    def _run_phases(
        self,
        run: Run,
        images: Images | None,
        measurements: Measurements,
        folder: Path | None,
        configuration: Mapping[str, Any],
    ) -> None:
        display = ProgressDisplay(quiet=self.quiet, verbose=self.request.verbose)
        history = History(self.record, self.request.precision)
        watchers: list[Watcher] = [
            history,
            Evaluations(history, display, measurements.ranges, measurements.glance),
            display,
        ]
        if self.observed is not None and images is not None:
            watchers.append(Dynamics(self.record, self.observed, images))
        with display:
            if folder is None:
                run_to_the_end(run, watchers)
            else:
                self._run_in(folder, run, images, watchers, display, configuration)

    def _run_in(
        self,
        folder: Path,
        run: Run,
        images: Images | None,
        watchers: list[Watcher],
        display: ProgressDisplay,
        configuration: Mapping[str, Any],
    ) -> None:
        saving = Checkpoints(folder / CHECKPOINT, write_bytes, configuration, self.record)
        signals = HeldSignals(display.say, saving.save)
        if self.accelerator.is_main_process:
            make_folder(folder / CHECKPOINT)
        logged = self._log_in(folder / LOG, run.done, images)
        with logged as log, signals:
            run_to_the_end(run, [*watchers, *log, saving, signals])
        if not run.cut:  # otherwise it was saved before; measuring may be stopped or fail too
            saving.save(run)

    def _log_in(
        self, folder: Path, done: int, images: Images | None
    ) -> AbstractContextManager[list[Watcher]]:
        if not self.accelerator.is_main_process:
            return nullcontext([])
        return log_in(folder, self.record, done, self.network.input, self.request.seed, images)

    def _diagnose(self, source: Images) -> dict[str, Any] | None:
        if self.observed is None:
            return None
        terms = () if self.method.images is None else self.method.images.terms
        return {
            "schema": 1,
            "dynamics": over_time(self.record),
            **diagnose(self.bench, source, self.observed, self.images, terms),
        }

    def _describe(self) -> dict[str, Any]:
        return {
            **describe_machine(self.accelerator.device),
            "history": {"losses": self.record.losses, "accuracy": self.record.accuracy},
        }
