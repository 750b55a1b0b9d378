"""What is measured of a run: accuracy, agreement, diversity, samples, and where accuracy went."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn

from dreamquant.evaluation.analysis import affordable_images, analyse, image_count
from dreamquant.evaluation.answers import Answers
from dreamquant.evaluation.data import EvaluationSet
from dreamquant.evaluation.diversity import diversity, look_at
from dreamquant.evaluation.metrics import evaluate, evaluate_both, wilson
from dreamquant.jobs.progress import counting
from dreamquant.quantization.student import Student
from dreamquant.results.result import Samples
from dreamquant.synthesis.source import Images

_GLANCE = 1000  # images for accuracies on the way
_SYNTHETIC = 512  # images for diversity, and for agreement where there are no others
_SHOWN = 40  # images in samples.png
_AT_ONCE = 32  # so many images of 224 pixels take a gigabyte or two
_ANALYSIS = 2**31  # added to the seed, for random numbers that no training process draws


class Measurements:
    """Measures a run, in its course and when it is over.

    Args:
        teacher: P, on ``device``.
        images: to measure on; ``None`` measures agreement on synthetic images alone.
        classes: number of labels.
        prepared: the float network whose modules are named as the student's.
        source: of synthetic images.
        seed: of the images that the analysis draws.
        device: of both networks.
    """

    def __init__(
        self,
        teacher: nn.Module,
        images: EvaluationSet | None,
        *,
        classes: int,
        prepared: nn.Module,
        source: Images,
        seed: int,
        device: torch.device,
    ) -> None:
        self.teacher, self.images, self.source = teacher, images, source
        self.classes, self.prepared = classes, prepared
        self.seed, self.device = seed, device
        self.answers = Answers(classes)

    def ranges(self, student: Student) -> dict[str, Any] | None:
        """The student with its ranges set and nothing learned; ``None`` without images."""
        if self.images is None or not student.quantized_weights():
            return None
        # Without labels there is nothing to tell but agreement.
        teacher = self.teacher if self.images.labels is None else None
        return evaluate(student, self.images, teacher=teacher, device=self.device).as_json()

    def glance(self, student: Student) -> tuple[float, int] | None:
        """Top-1 in percent of a few images and their number; ``None`` without labels."""
        if self.images is None or self.images.labels is None:
            return None
        few = self.images.first(_GLANCE)
        seen = evaluate(student, few, device=self.device)
        return (seen.top1 or 0.0), seen.n

    def finish(
        self, student: Student, ranges_only: dict[str, Any] | None, *, quiet: bool
    ) -> dict[str, Any]:
        """Put the student on its grids for good, and measure it.

        Args:
            student: of a run that is over.
            ranges_only: what :meth:`ranges` found during the run.
            quiet: show no progress.

        Returns:
            ``teacher``, ``ranges_only`` and ``student`` accuracies (``None`` without labelled
            images), ``agreement`` in percent and what it was measured on, and ``diversity`` of
            synthetic images (``None`` where no ReLU of the teacher yields a feature map).
        """
        student.fix()
        measured = self._measured(student, ranges_only, quiet=quiet)
        return {**measured, "diversity": self._diversity()}

    def _measured(
        self, student: Student, ranges_only: dict[str, Any] | None, *, quiet: bool
    ) -> dict[str, Any]:
        device, module = self.device, self.teacher
        if self.images is None:
            agreed = self._synthetic_agreement(student)
            return {
                "accuracy": {"teacher": None, "ranges_only": None, "student": None},
                "agreement": _agreement(agreed, _SYNTHETIC, f"{_SYNTHETIC} {self.source.called}"),
            }
        with counting("measuring both networks", len(self.images), quiet=quiet) as count:
            seen, teacher = evaluate_both(
                student,
                module,
                self.images,
                device=device,
                on_batch=count,
                on_answers=self.answers.add,
            )
        assert seen.agreement is not None  # there was a teacher to agree with
        agreed = round(seen.agreement * seen.n / 100)
        return {
            "accuracy": {
                "teacher": teacher.as_json(),
                "ranges_only": ranges_only,
                "student": seen.as_json(),
            },
            "agreement": _agreement(agreed, seen.n, f"{seen.n} images given"),
        }

    @torch.no_grad()
    def _synthetic_agreement(self, student: Student) -> int:
        agreed = 0
        for images in self._synthetic():
            wanted = self.teacher(images).argmax(1)
            given = student(images).argmax(1)
            agreed += int(given.eq(wanted).sum())
            self.answers.add(given, wanted)
        return agreed

    @torch.no_grad()
    def _diversity(self) -> dict[str, Any] | None:
        module, device = self.teacher, self.device
        synthetic = look_at(module, self._synthetic())
        if synthetic is None:
            return None
        real = None
        if self.images is not None:
            few = self.images.first(_SYNTHETIC).batches(_AT_ONCE)
            real = look_at(module, (images.to(device) for images in few))
        return asdict(diversity(synthetic, real))

    def _synthetic(self) -> Iterator[Tensor]:
        for start in range(0, _SYNTHETIC, _AT_ONCE):
            yield self.source.batch(min(_AT_ONCE, _SYNTHETIC - start)).images

    @torch.no_grad()
    def samples(self) -> Samples:
        """Synthetic images to look at, as many of each class."""
        source = self.source
        turns = torch.arange(_SHOWN, device=self.device) % self.classes
        asked = source.ask(_SHOWN, source.bench.rng.asked, turns.sort().values)
        batch = source.make(asked)
        images, labels = batch.images, batch.targets
        if labels.is_floating_point():
            labels = labels.argmax(1)
        probability = self.teacher(images).softmax(1)
        confidence = probability.gather(1, labels[:, None])[:, 0]
        return Samples(images.cpu(), labels.cpu(), confidence.cpu())

    @torch.no_grad()
    def analyse(self, student: Student, images_used: int) -> dict[str, Any]:
        """Where accuracy went: every quantizer looked at on synthetic images, answers compared.

        It draws its images from random numbers of its own, so that what a run gives does not
        depend on it.

        Args:
            student: of a run that is over.
            images_used: that the run took; the analysis takes a fraction of its time.
        """
        labels = None if self.images is None else self.images.labels
        return {
            **self._analysed_sites(student, images_used),
            "answers": self.answers.as_json(labels),
        }

    def _analysed_sites(self, student: Student, images_used: int) -> dict[str, Any]:
        sites = len(student.quantized_weights()) + len(student.activation_quantizers())
        if not sites:
            return {}
        affordable = affordable_images(images_used)
        count = image_count(sites, affordable)
        random = torch.Generator(self.device).manual_seed(self.seed + _ANALYSIS)
        batches = [
            self.source.batch(min(_AT_ONCE, count - start), random).images
            for start in range(0, count, _AT_ONCE)
        ]
        return analyse(self.prepared, student, batches, affordable)


def _agreement(agreed: int, n: int, on: str) -> dict[str, Any]:
    return {"percent": 100 * agreed / n, "on": on, "ci95": list(wilson(agreed, n))}
