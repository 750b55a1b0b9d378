"""What is measured of a run: accuracy, agreement, diversity, samples, and where accuracy went."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn

from dreamquant.diagnostics.dreams import dream
from dreamquant.evaluation.analysis import affordable_images, analyse, image_count
from dreamquant.evaluation.answers import Answers
from dreamquant.evaluation.data import EvaluationSet
from dreamquant.evaluation.diversity import diversity, look_at
from dreamquant.evaluation.metrics import evaluate, evaluate_both, wilson
from dreamquant.jobs.progress import counting
from dreamquant.results.result import Samples
from dreamquant.training.loop import Training

_GLANCE = 1000  # images for accuracies on the way
_SYNTHETIC = 512  # images for diversity, and for agreement where there are no others
_SHOWN = 40  # images in samples.png
_ANALYSIS = 2**31  # added to the seed, for random numbers that no training process draws


class Measuring:
    """Measures a run, on the way and when it is over.

    Args:
        teacher: P, on ``device``.
        images: to measure on; ``None`` measures agreement on synthetic images alone.
        classes: number of labels.
        seed: of the images that the analysis draws.
        device: of both networks.
    """

    def __init__(
        self,
        teacher: nn.Module,
        images: EvaluationSet | None,
        *,
        classes: int,
        seed: int,
        device: torch.device,
    ) -> None:
        self.teacher, self.images = teacher, images
        self.seed, self.device = seed, device
        self.answers = Answers(classes)

    def ranges(self, training: Training) -> dict[str, Any] | None:
        """The student with its ranges set and nothing learned; ``None`` if there is no telling."""
        if self.images is None or not training.student.quantized_weights():
            return None
        # Without labels there is nothing to tell but agreement.
        teacher = self.teacher if self.images.labels is None else None
        return evaluate(
            training.student, self.images, teacher=teacher, device=self.device
        ).as_json()

    def glance(self, training: Training) -> tuple[float, int] | None:
        """Top-1 in percent of a few images and their number; ``None`` without labels."""
        if self.images is None or self.images.labels is None:
            return None
        few = self.images.first(_GLANCE)
        seen = evaluate(training.student, few, device=self.device)
        return (seen.top1 or 0.0), seen.n

    def finish(
        self, training: Training, ranges_only: dict[str, Any] | None, *, quiet: bool
    ) -> dict[str, Any]:
        """Put the student on its grids for good, and measure it.

        Args:
            training: over.
            ranges_only: what :meth:`ranges` found on the way.
            quiet: show no progress.

        Returns:
            ``teacher``, ``ranges_only`` and ``student`` accuracies (``None`` without labelled
            images), ``agreement`` in percent and what it was measured on, and ``diversity`` of
            synthetic images (``None`` where no ReLU of the teacher yields a feature map).
        """
        training.student.fix()
        measured = self._measured(training, ranges_only, quiet=quiet)
        return {**measured, "diversity": self._diversity(training)}

    def _measured(
        self, training: Training, ranges_only: dict[str, Any] | None, *, quiet: bool
    ) -> dict[str, Any]:
        device, module = self.device, self.teacher
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
        assert student.agreement is not None  # there was a teacher to agree with
        agreed = round(student.agreement * student.n / 100)
        return {
            "accuracy": {
                "teacher": teacher.as_json(),
                "ranges_only": ranges_only,
                "student": student.as_json(),
            },
            "agreement": _agreement(agreed, student.n, f"{student.n} images given"),
        }

    @torch.no_grad()
    def _synthetic_agreement(self, training: Training) -> int:
        agreed = 0
        for images in self._synthetic(training):
            wanted = self.teacher(images).argmax(1)
            given = training.student(images).argmax(1)
            agreed += int(given.eq(wanted).sum())
            self.answers.add(given, wanted)
        return agreed

    @torch.no_grad()
    def _diversity(self, training: Training) -> dict[str, Any] | None:
        module, device = self.teacher, self.device
        synthetic = look_at(module, self._synthetic(training))
        if synthetic is None:
            return None
        real = None
        if self.images is not None:
            few = self.images.first(_SYNTHETIC).batches(training.recipe.schedule.batch)
            real = look_at(module, (images.to(device) for images in few))
        return asdict(diversity(synthetic, real))

    def _synthetic(self, training: Training) -> Iterator[Tensor]:
        # Batch by batch: so many images of 224 pixels at once take tens of gigabytes.
        batch = training.recipe.schedule.batch
        for start in range(0, _SYNTHETIC, batch):
            yield training.invent(training.ask(min(batch, _SYNTHETIC - start))).images

    @torch.no_grad()
    def samples(self, training: Training) -> Samples:
        """Synthetic images to look at, as many of each class."""
        classes = training.classes
        turns = torch.arange(_SHOWN, device=self.device) % classes
        labels = turns.sort().values
        images = training.invent(training.ask(_SHOWN, labels)).images
        probability = self.teacher(images).softmax(1)
        confidence = probability.gather(1, labels[:, None])[:, 0]
        return Samples(images.cpu(), labels.cpu(), confidence.cpu())

    @torch.no_grad()
    def analyse(self, training: Training) -> dict[str, Any]:
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
        schedule = training.recipe.schedule
        affordable = affordable_images(schedule.iterations * schedule.batch)
        count = image_count(sites, affordable)
        random = torch.Generator(self.device).manual_seed(self.seed + _ANALYSIS)
        wanted = training.recipe.targets.sample(count, training.classes, random)
        batches = [
            dream(training, random, few).images for few in torch.split(wanted, schedule.batch)
        ]
        return analyse(self.teacher, student, batches, affordable)


def _agreement(agreed: int, n: int, on: str) -> dict[str, Any]:
    return {"percent": 100 * agreed / n, "on": on, "ci95": list(wilson(agreed, n))}
