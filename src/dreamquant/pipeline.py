"""The phases of one quantization: convert, train, measure, and what a killed run left behind."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from dreamquant.errors import ResultError
from dreamquant.evaluation.data import EvaluationSet
from dreamquant.evaluation.metrics import evaluate
from dreamquant.methods.method import Recipe
from dreamquant.networks.load import Network
from dreamquant.quantization.convert import quantize_network
from dreamquant.quantization.layers import Student
from dreamquant.quantization.scheme import Scheme
from dreamquant.results.files import write_bytes
from dreamquant.results.result import CHECKPOINT, LOG, Samples, claim_folder
from dreamquant.training import checkpoint
from dreamquant.training.budget import fit
from dreamquant.training.loop import Training, Watcher, run
from dreamquant.training.progress import ProgressDisplay
from dreamquant.training.step import Teacher
from dreamquant.training.watchers import (
    Checkpoints,
    Evaluations,
    History,
    Record,
    TensorBoardLog,
)

_GLANCE = 1000  # images for accuracies on the way
_SYNTHETIC = 512  # images for agreement where there are no others
_SHOWN = 40  # images in samples.png


def plain(value: Mapping[str, Any]) -> dict[str, Any]:
    """The mapping as JSON would give it back: lists for tuples, names for keys."""
    result: dict[str, Any] = json.loads(json.dumps(value))
    return result


class Job:
    """One quantization: a teacher, the student made from it, and a recipe to train it by.

    Args:
        network: the teacher.
        scheme: what the student becomes.
        recipe: how it learns.
        images: to measure on; ``None`` measures agreement on synthetic images alone.
        seed: of everything random.
        accelerator: device, precision and processes.
    """

    def __init__(
        self,
        network: Network,
        scheme: Scheme,
        recipe: Recipe,
        images: EvaluationSet | None,
        *,
        seed: int,
        accelerator: Accelerator,
    ) -> None:
        self.network, self.scheme, self.recipe = network, scheme, recipe
        self.images, self.seed, self.accelerator = images, seed, accelerator
        self.record = Record()
        device = accelerator.device
        example = torch.zeros(2, *network.input.shape, device=device)
        module = network.module.to(device)
        self.student, self.coverage = quantize_network(module, scheme, example)
        self.teacher = Teacher(module, example, recipe.taps)

    def fit_budget(self, seconds: float) -> None:
        """Scale the schedule to the speed of this machine."""
        schedule = fit(
            self.recipe.schedule, seconds, lambda: self._training(copy.deepcopy(self.student))
        )
        self.recipe = replace(self.recipe, schedule=schedule)

    def train(
        self,
        folder: Path | None,
        configuration: Mapping[str, Any],
        saved: Mapping[str, Any] | None,
        *,
        quiet: bool,
    ) -> Training:
        """Train to the end of the schedule, watching on the way.

        Args:
            folder: for checkpoints and logs.
            configuration: that a later process must share to resume.
            saved: the checkpoint to go on from.
            quiet: show no progress.

        Raises:
            TrainingError: a loss is not finite.
            KeyboardInterrupt: after the run was saved.
        """
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
        if folder is None or not self.accelerator.is_main_process:
            run(training, watchers)
            return
        saving = Checkpoints(folder / CHECKPOINT, write_bytes, configuration, self.record)
        log = TensorBoardLog(folder / LOG, self.record, training.iteration)
        try:
            run(training, [*watchers, log, saving])
        except KeyboardInterrupt:
            saving.save(training)
            raise
        finally:
            log.close()

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
        if self.images is None:
            return None
        device = self.accelerator.device
        return evaluate(training.student, self.images, device=device).as_json()

    def _glance(self, training: Training) -> tuple[float, int] | None:
        if self.images is None or self.images.labels is None:
            return None
        few = self.images.first(_GLANCE)
        seen = evaluate(training.student, few, device=self.accelerator.device)
        return (seen.top1 or 0.0), seen.n

    def finish(self, training: Training) -> dict[str, Any]:
        """Put the student on its grids for good, and measure it.

        Returns:
            ``teacher``, ``ranges_only`` and ``student`` accuracies (``None`` without labelled
            images), ``agreement`` in percent and what it was measured on.
        """
        training.student.fix()
        device, module = self.accelerator.device, self.teacher.network
        if self.images is None:
            agreement = self._synthetic_agreement(training)
            on = f"{_SYNTHETIC} synthetic images"
            return {
                "accuracy": {"teacher": None, "ranges_only": None, "student": None},
                "agreement": {"percent": agreement, "on": on},
            }
        student = evaluate(training.student, self.images, teacher=module, device=device)
        teacher = evaluate(module, self.images, device=device)
        return {
            "accuracy": {
                "teacher": teacher.as_json(),
                "ranges_only": self.record.ranges_only,
                "student": student.as_json(),
            },
            "agreement": {"percent": student.agreement, "on": f"{student.n} images given"},
        }

    @torch.no_grad()
    def _synthetic_agreement(self, training: Training) -> float:
        images = training.invent(self._labels(_SYNTHETIC))
        wanted = self.teacher.network(images).argmax(1)
        agreed = training.student(images).argmax(1).eq(wanted).float().mean()
        return 100 * float(agreed)

    @torch.no_grad()
    def samples(self, training: Training) -> Samples:
        """Synthetic images to look at, as many of each class."""
        labels = self._labels(_SHOWN).sort().values
        images = training.invent(labels)
        probability = self.teacher.network(images).softmax(1)
        confidence = probability.gather(1, labels[:, None])[:, 0]
        return Samples(images.cpu(), labels.cpu(), confidence.cpu())

    def _labels(self, count: int) -> torch.Tensor:
        turns = torch.arange(count, device=self.accelerator.device)
        return turns % self.network.input.num_classes


def open_folder(
    folder: Path | None, configuration: Mapping[str, Any], *, resume: bool
) -> dict[str, Any] | None:
    """Claim the result folder, and read the checkpoint in it where the run is to go on.

    Raises:
        ResultError: the folder holds a result, or an unfinished run that was not to be resumed.
        TrainingError: there is nothing to resume, or it was another run.
    """
    if folder is None:
        if resume:
            raise ResultError("there is nothing to resume without a folder", where="--out")
        return None
    claim_folder(folder)
    if resume:
        saved = checkpoint.read(folder / CHECKPOINT)
        checkpoint.require_same_run(saved["configuration"], configuration, folder / CHECKPOINT)
        return saved
    if (folder / CHECKPOINT / checkpoint.STATE).exists():
        raise ResultError(
            f"{folder} holds an unfinished run",
            where="--out",
            remedy="add --resume to go on with it, give another folder, or delete this one",
        )
    return None
