"""What is measured of a run: accuracy, agreement, diversity, samples, and where accuracy went."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from dreamquant.errors import MethodError
from dreamquant.evaluation.analysis import affordable_images, analyse, image_count
from dreamquant.evaluation.answers import Answers
from dreamquant.evaluation.data import EvaluationSet
from dreamquant.evaluation.diversity import diversity, look_at
from dreamquant.evaluation.metrics import evaluate, evaluate_both, wilson
from dreamquant.jobs.progress import counting
from dreamquant.quantization.student import Student
from dreamquant.results.result import Samples
from dreamquant.synthesis.probe import COUNT as PROBES
from dreamquant.synthesis.probe import NAME as PROBE_IMAGES
from dreamquant.synthesis.probe import ProbeImages
from dreamquant.synthesis.source import Images
from dreamquant.training.bench import Bench

_GLANCE = 1000  # images for accuracies on the way
_SYNTHETIC = 512  # images for diversity
_SHOWN = 40  # images in samples.png
_AT_ONCE = 32  # so many images of 224 pixels take a gigabyte or two


class Measurements:
    """Measures a run, in its course and when it is over.

    Args:
        bench: what the run works on.
        images: to measure on; ``None`` measures agreement on probe images alone.
        source: of synthetic images; ``None`` of a method without.
    """

    def __init__(self, bench: Bench, images: EvaluationSet | None, source: Images | None) -> None:
        self.teacher, self.prepared, self.device = bench.teacher, bench.prepared, bench.device
        self.images, self.source, self.probe = images, source, ProbeImages(bench)
        self.classes = bench.input.num_classes
        self.answers = Answers(self.classes)

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
            synthetic images (``None`` without them, and where no ReLU of the teacher yields a
            feature map).

        Raises:
            MethodError: no part of the method has set the ranges of activations.
        """
        _require_ranges(student)
        student.fix()
        measured = self._measured(student, ranges_only, quiet=quiet)
        return {**measured, "diversity": self._diversity()}

    def _measured(
        self, student: Student, ranges_only: dict[str, Any] | None, *, quiet: bool
    ) -> dict[str, Any]:
        device, module = self.device, self.teacher
        if self.images is None:
            agreed = self._agreed_on_probe(student)
            return {
                "accuracy": {"teacher": None, "ranges_only": None, "student": None},
                "agreement": _agreement(agreed, PROBES, PROBE_IMAGES),
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
    def _agreed_on_probe(self, student: Student) -> int:
        agreed = 0
        for images in self.probe.batches(PROBES, _AT_ONCE):
            wanted = self.teacher(images).argmax(1)
            given = student(images).argmax(1)
            agreed += int(given.eq(wanted).sum())
            self.answers.add(given, wanted)
        return agreed

    @torch.no_grad()
    def _diversity(self) -> dict[str, Any] | None:
        if self.source is None:
            return None
        module, device = self.teacher, self.device
        synthetic = look_at(module, self._synthetic(self.source))
        if synthetic is None:
            return None
        real = None
        if self.images is not None:
            few = self.images.first(_SYNTHETIC).batches(_AT_ONCE)
            real = look_at(module, (images.to(device) for images in few))
        return asdict(diversity(synthetic, real))

    def _synthetic(self, source: Images) -> Iterator[Tensor]:
        for start in range(0, _SYNTHETIC, _AT_ONCE):
            yield source.batch(min(_AT_ONCE, _SYNTHETIC - start)).images

    @torch.no_grad()
    def samples(self) -> Samples | None:
        """Synthetic images to look at, as many of each class; ``None`` of a method without."""
        source = self.source
        if source is None:
            return None
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
        """Where accuracy went: every quantizer looked at on probe images, answers compared.

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
        batches = list(self.probe.batches(count, _AT_ONCE))
        return {"on": "probe images", **analyse(self.prepared, student, batches, affordable)}


def _require_ranges(student: Student) -> None:
    """Refuse a student that would round activations on a grid of no meaning."""
    if names := student.without_range():
        others = f" and {len(names) - 1} more" if len(names) > 1 else ""
        raise MethodError(
            f"the method never set the activation range of {names[0]}{others}",
            where="recovery",
            remedy="let a part of the method set ranges, such as Calibrate()",
        )


def _agreement(agreed: int, n: int, on: str) -> dict[str, Any]:
    return {"percent": 100 * agreed / n, "on": on, "ci95": list(wilson(agreed, n))}
