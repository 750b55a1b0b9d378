"""The phases of one run: train, measure, describe, and what a killed run left behind."""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from accelerate import Accelerator
from torch import Tensor

from dreamquant.diagnostics.dynamics import Dynamics, over_time
from dreamquant.diagnostics.images import diagnose, observed
from dreamquant.errors import ResultError
from dreamquant.evaluation.analysis import affordable_images, analyse, image_count
from dreamquant.evaluation.answers import Answers
from dreamquant.evaluation.data import EvaluationSet
from dreamquant.evaluation.diversity import diversity, look_at
from dreamquant.evaluation.metrics import evaluate, evaluate_both, wilson
from dreamquant.methods.method import Recipe
from dreamquant.networks.load import Network
from dreamquant.quantization.layers import Student
from dreamquant.report.write import write_after_run
from dreamquant.results.files import write_bytes
from dreamquant.results.manifest import describe_machine
from dreamquant.results.result import (
    CHECKPOINT,
    LOG,
    Result,
    Samples,
    claim_folder,
    require_no_result,
)
from dreamquant.training import checkpoint
from dreamquant.training.budget import fit
from dreamquant.training.loop import Training, Watcher, run
from dreamquant.training.progress import ProgressDisplay, counting
from dreamquant.training.signals import HeldSignals
from dreamquant.training.step import Chance, Teacher
from dreamquant.training.watchers import (
    Checkpoints,
    Evaluations,
    History,
    Record,
    TensorBoardLog,
)

_GLANCE = 1000  # images for accuracies on the way
_SYNTHETIC = 512  # images for diversity, and for agreement where there are no others
_SHOWN = 40  # images in samples.png
_ANALYSIS = 2**31  # added to the seed, for random numbers that no training process draws


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
        images: to measure on; ``None`` measures agreement on synthetic images alone.
        seed: of everything random.
        accelerator: device, precision and processes.
        diagnostics: whether to record what the papers diagnose.

    Raises:
        NetworkError: the network lacks what the recipe or the diagnostics read.
    """

    def __init__(
        self,
        network: Network,
        student: Student,
        recipe: Recipe,
        images: EvaluationSet | None,
        *,
        seed: int,
        accelerator: Accelerator,
        diagnostics: bool = False,
    ) -> None:
        self.network, self.recipe = network, recipe
        self.images, self.seed, self.accelerator = images, seed, accelerator
        self.record = Record()
        self.answers = Answers(network.input.num_classes)
        self.analysis: dict[str, Any] = {}
        device = accelerator.device
        example = torch.zeros(2, *network.input.shape, device=device)
        self.student = student.to(device)
        self.teacher = Teacher(network.module.to(device), example, recipe.taps)
        self.observed = observed(network.module, example) if diagnostics else None

    def complete(
        self,
        folder: Path | None,
        configuration: Mapping[str, Any],
        *,
        started: float,
        budget: float | None,
        resume: bool,
        quiet: bool,
    ) -> Outcome:
        """Train and measure.

        Args:
            folder: for checkpoints and logs.
            configuration: that a later process must share to resume.
            started: when this process began, by the monotonic clock.
            budget: seconds from then to the end of training; ``None`` keeps the schedule.
            resume: go on from the checkpoint in ``folder``.
            quiet: show no progress.

        Raises:
            ResultError: the folder cannot take this run.
            TrainingError: there is nothing to resume, or it was another run; or a loss is not
                finite.
            KeyboardInterrupt: after the run was saved, unless the user did not wait for that.
        """
        saved = open_folder(folder, configuration, resume=resume)
        if budget is not None and saved is None:
            self._fit_budget(budget - (time.monotonic() - started))
        before = 0.0 if saved is None else saved["record"]["seconds"]
        training = self._train(folder, configuration, saved, quiet=quiet)
        measured = self._finish(training, quiet=quiet)
        samples, analysis = self._samples(training), self._analyse(training)
        diagnosed = self._diagnose(training)
        timings = {
            "training_seconds": self.record.seconds,
            "seconds": before + time.monotonic() - started,
            "iterations": training.iteration,
        }
        measured = {**measured, **self._describe(), "timings": timings}
        return Outcome(training.student, measured, samples, analysis, diagnosed)

    def result(self, outcome: Outcome, manifest: Mapping[str, Any], folder: Path | None) -> Result:
        """The result of a run that is over; saved where there is a folder.

        Raises:
            ResultError: the folder cannot be written.
        """
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
            result.save(folder)
        return result

    def _fit_budget(self, seconds: float) -> None:
        """Scale the schedule to the speed of this machine."""
        schedule = fit(
            self.recipe.schedule, seconds, lambda: self._training(copy.deepcopy(self.student))
        )
        self.recipe = replace(self.recipe, schedule=schedule)

    def _train(
        self,
        folder: Path | None,
        configuration: Mapping[str, Any],
        saved: Mapping[str, Any] | None,
        *,
        quiet: bool,
    ) -> Training:
        if saved is not None:
            self.record = Record(**saved["record"])
            schedule = self.recipe.schedule.scaled(self.record.iterations)
            self.recipe = replace(self.recipe, schedule=schedule)
        total = self.recipe.schedule.iterations
        self.record.iterations = total
        training = self._training(self.student)
        if saved is not None:
            training.load_state_dict(saved["training"])
        display = ProgressDisplay(total, done=training.iteration, quiet=quiet)
        with display:
            self._run(training, display, folder, configuration)
        return training

    def _run(
        self,
        training: Training,
        display: ProgressDisplay,
        folder: Path | None,
        configuration: Mapping[str, Any],
    ) -> None:
        watchers: list[Watcher] = [
            History(self.record),
            Evaluations(self.record, display, self._measure_ranges, self._glance),
            display,
        ]
        if self.observed is not None:
            watchers.append(Dynamics(self.record, self.observed))
        if folder is None or not self.accelerator.is_main_process:
            run(training, watchers)
            return
        claim_folder(folder)
        signals = HeldSignals(display.say)
        saving = Checkpoints(
            folder / CHECKPOINT,
            write_bytes,
            configuration,
            self.record,
            stopping=lambda: signals.waiting,
        )
        log = TensorBoardLog(folder / LOG, self.record, training.iteration)
        try:
            with signals:
                run(training, [*watchers, log, saving, signals])
        finally:
            log.close()
        # What comes now, measuring, takes a while and may be stopped or fail too.
        saving.save(training)

    def _training(self, student: Student) -> Training:
        return Training(
            self.recipe,
            self.teacher,
            student,
            image=self.network.input.shape,
            classes=self.network.input.num_classes,
            seed=self.seed,
            accelerator=self.accelerator,
        )

    def _measure_ranges(self, training: Training) -> dict[str, Any] | None:
        if self.images is None or not self.student.quantized_weights():
            return None
        # Without labels there is nothing to tell but agreement.
        teacher = self.teacher.network if self.images.labels is None else None
        return evaluate(
            training.student, self.images, teacher=teacher, device=self.accelerator.device
        ).as_json()

    def _glance(self, training: Training) -> tuple[float, int] | None:
        if self.images is None or self.images.labels is None:
            return None
        few = self.images.first(_GLANCE)
        seen = evaluate(training.student, few, device=self.accelerator.device)
        return (seen.top1 or 0.0), seen.n

    def _finish(self, training: Training, *, quiet: bool) -> dict[str, Any]:
        """Put the student on its grids for good, and measure it.

        Returns:
            ``teacher``, ``ranges_only`` and ``student`` accuracies (``None`` without labelled
            images), ``agreement`` in percent and what it was measured on, and ``diversity`` of
            synthetic images (``None`` where no ReLU of the teacher yields a feature map).
        """
        training.student.fix()
        return {**self._measured(training, quiet=quiet), "diversity": self._diversity(training)}

    def _measured(self, training: Training, *, quiet: bool) -> dict[str, Any]:
        device, module = self.accelerator.device, self.teacher.network
        if self.images is None:
            agreed = self._synthetic_agreement(training)
            return {
                "accuracy": {"teacher": None, "ranges_only": None, "student": None},
                "agreement": _agreement(agreed, _SYNTHETIC, f"{_SYNTHETIC} synthetic images"),
            }
        with counting("measuring both networks", len(self.images), quiet=quiet) as count:
            student, teacher = evaluate_both(
                training.student,
                module,
                self.images,
                device=device,
                on_batch=count,
                on_answers=self.answers.add,
            )
        agreed = round((student.agreement or 0) * student.n / 100)
        return {
            "accuracy": {
                "teacher": teacher.as_json(),
                "ranges_only": self.record.ranges_only,
                "student": student.as_json(),
            },
            "agreement": _agreement(agreed, student.n, f"{student.n} images given"),
        }

    @torch.no_grad()
    def _synthetic_agreement(self, training: Training) -> int:
        agreed = 0
        for images in self._synthetic(training):
            wanted = self.teacher.network(images).argmax(1)
            given = training.student(images).argmax(1)
            agreed += int(given.eq(wanted).sum())
            self.answers.add(given, wanted)
        return agreed

    @torch.no_grad()
    def _diversity(self, training: Training) -> dict[str, Any] | None:
        module, device = self.teacher.network, self.accelerator.device
        synthetic = look_at(module, self._synthetic(training))
        if synthetic is None:
            return None
        real = None
        if self.images is not None:
            few = self.images.first(_SYNTHETIC).batches(self.recipe.schedule.batch)
            real = look_at(module, (images.to(device) for images in few))
        return asdict(diversity(synthetic, real))

    def _synthetic(self, training: Training) -> Iterator[Tensor]:
        # Batch by batch: so many images of 224 pixels at once take tens of gigabytes.
        batch = self.recipe.schedule.batch
        for start in range(0, _SYNTHETIC, batch):
            yield training.draw_batch(min(batch, _SYNTHETIC - start)).images

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

    @torch.no_grad()
    def _samples(self, training: Training) -> Samples:
        """Synthetic images to look at, as many of each class."""
        classes = self.network.input.num_classes
        turns = torch.arange(_SHOWN, device=self.accelerator.device) % classes
        labels = turns.sort().values
        asked = self.recipe.centres
        centres = None if asked is None else asked.sample(_SHOWN, training.chance.random)
        images = training.invent(labels, centres).images
        probability = self.teacher.network(images).softmax(1)
        confidence = probability.gather(1, labels[:, None])[:, 0]
        return Samples(images.cpu(), labels.cpu(), confidence.cpu())

    @torch.no_grad()
    def _analyse(self, training: Training) -> dict[str, Any]:
        """Where accuracy went: every quantizer looked at on synthetic images, answers compared.

        It draws its images from random numbers of its own, so that what a run gives does not
        depend on it.
        """
        labels = None if self.images is None else self.images.labels
        return {**self._analysed_sites(training), "answers": self.answers.as_json(labels)}

    def _analysed_sites(self, training: Training) -> dict[str, Any]:
        student = training.student
        sites = len(student.quantized_weights()) + len(student.activation_quantizers())
        if not sites:
            return {}
        schedule = self.recipe.schedule
        affordable = affordable_images(schedule.iterations * schedule.batch)
        count = image_count(sites, affordable)
        own = copy.copy(training)
        own.chance = Chance.seeded(self.seed + _ANALYSIS, self.accelerator.device)
        size = min(schedule.batch, count)
        batches = [
            own.draw_batch(min(size, count - start)).images for start in range(0, count, size)
        ]
        return analyse(self.teacher.network, student, batches, affordable)


def _agreement(agreed: int, n: int, on: str) -> dict[str, Any]:
    return {"percent": 100 * agreed / n, "on": on, "ci95": list(wilson(agreed, n))}


def open_folder(
    folder: Path | None, configuration: Mapping[str, Any], *, resume: bool
) -> dict[str, Any] | None:
    """Read the checkpoint in the result folder where the run is to go on; nothing is written yet.

    Raises:
        ResultError: the folder holds a result, or an unfinished run that was not to be resumed.
        TrainingError: there is nothing to resume, or it was another run.
    """
    if folder is None:
        if resume:
            raise ResultError("there is nothing to resume without a folder", where="--out")
        return None
    require_no_result(folder)
    if resume:
        saved = checkpoint.read(folder / CHECKPOINT)
        checkpoint.require_same_run(saved["configuration"], configuration, folder / CHECKPOINT)
        return saved
    if (folder / CHECKPOINT / checkpoint.STATE).exists():
        raise ResultError(
            f"{folder} holds an unfinished run",
            where="--out",
            remedy="add --resume to go on with it, or give another folder",
        )
    return None
