"""What is measured of a run: accuracy, agreement, diversity, samples, and where accuracy went."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, replace
from typing import Any

import torch
from torch import Tensor

from dreamquant.errors import MethodError
from dreamquant.evaluation.analysis import affordable_images, analyse, image_count
from dreamquant.evaluation.answers import Answers
from dreamquant.evaluation.classes import Classification
from dreamquant.evaluation.data import EvaluationSet
from dreamquant.evaluation.diversity import diversity, look_at
from dreamquant.evaluation.intervals import wilson
from dreamquant.evaluation.majority import Remark, constant_agreement, remark
from dreamquant.evaluation.metrics import evaluate, evaluate_both
from dreamquant.evaluation.regression import Regression
from dreamquant.evaluation.task import Agreement
from dreamquant.evaluation.tasks import task_of
from dreamquant.jobs.progress import counting
from dreamquant.networks.outputs import as_one
from dreamquant.networks.spec import InputSpec
from dreamquant.quantization.student import Student
from dreamquant.results.result import Samples
from dreamquant.synthesis.generator_networks import LARGEST_SMALL_IMAGE
from dreamquant.synthesis.probe import COUNT as PROBES
from dreamquant.synthesis.probe import NAME as PROBE_IMAGES
from dreamquant.synthesis.probe import ProbeImages
from dreamquant.synthesis.source import Images
from dreamquant.training.bench import Bench

_GLANCE = 1000  # images for accuracies on the way
# Images for diversity, and probe images; of large ones as many take minutes.
_SYNTHETIC, _LARGE = 512, 128
# Detectors and segmenters take large images, and each of their outputs tells much.
_FEW = 64
_SHOWN = 40  # images in samples.png
_AT_ONCE = 32  # so many images of 224 pixels take a gigabyte or two


def synthetic_count(spec: InputSpec) -> int:
    """How many synthetic images measurements look at."""
    return _LARGE if _is_large(spec) else _SYNTHETIC


def probe_count(spec: InputSpec) -> int:
    """The number of probe images on which agreement is measured."""
    if spec.task != "classification":
        return _FEW
    return _LARGE if _is_large(spec) else PROBES


def _is_large(spec: InputSpec) -> bool:
    return max(spec.shape[-2:]) > LARGEST_SMALL_IMAGE


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
        self.spec, self.task = bench.input, task_of(bench.input)
        self.classifies = isinstance(self.task, Classification)
        self.answers = Answers(self.spec.num_classes)
        self.synthetic = synthetic_count(bench.input)

    def ranges(self, student: Student) -> dict[str, Any] | None:
        """The student with its ranges set and nothing learned; ``None`` without images."""
        if self.images is None or not student.quantized_weights():
            return None
        # Without labels there is nothing to tell but agreement.
        teacher = None if self.images.labelled else self.teacher
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
            synthetic images (``None`` without them, of a network that is no classifier, and where
            no ReLU of the teacher yields a feature map).

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
            probes = probe_count(self.spec)
            agreed, constant = self._agreed_on_probe(student, probes)
            on = PROBE_IMAGES.replace(str(PROBES), str(probes))
            return {
                "accuracy": {"teacher": None, "ranges_only": None, "student": None},
                "agreement": self._agreement(agreed, on, remark(constant, on, given=False)),
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
        ci95 = seen.agreement_ci95 or wilson(round(seen.agreement * seen.n / 100), seen.n)
        agreed, on = Agreement(seen.agreement, ci95, seen.outputs), f"{seen.n} images given"
        # With labels a score tells whether the network works.
        said = None if self.images.labelled else remark(seen.constant, on, given=True)
        return {
            "accuracy": {
                "teacher": teacher.as_json(),
                "ranges_only": ranges_only,
                "student": seen.as_json(),
            },
            "agreement": self._agreement(agreed, on, said),
        }

    def _agreement(self, agreed: Agreement, on: str, said: Remark | None) -> dict[str, Any]:
        found: dict[str, Any] = {
            "percent": agreed.percent,
            "on": on,
            "ci95": list(agreed.ci95),
            **({} if said is None else {"remark": said._asdict()}),
        }
        if self.classifies:
            return found
        return {**found, "means": self.task.agreeing, "outputs": agreed.outputs}

    @torch.no_grad()
    def _agreed_on_probe(self, student: Student, count: int) -> tuple[Agreement, float | None]:
        """The agreement on probe images, and that of a constant answer."""
        rows, decided = [], []
        for images in self.probe.batches(count, _AT_ONCE):
            wanted, given = self.teacher(images), student(images)
            rows.append(self.task.agree(given, wanted))
            decided.append(self.task.decisions(wanted))
            if self.classifies:
                self.answers.add(given.argmax(1), wanted.argmax(1))
        counts = [each for each in decided if each is not None]
        constant = constant_agreement(torch.stack(counts).sum(0)) if counts else None
        return self.task.agreement(torch.cat(rows)), constant

    @torch.no_grad()
    def _diversity(self) -> dict[str, Any] | None:
        if self.source is None:
            return None
        module, device = self.teacher, self.device
        if not self.classifies:
            return None
        synthetic = look_at(module, self._synthetic(self.source))
        if synthetic is None:
            return None
        real = None
        if self.images is not None:
            few = self.images.first(self.synthetic).batches(_AT_ONCE)
            real = look_at(module, (images.to(device) for images in few))
        return asdict(diversity(synthetic, real))

    def _synthetic(self, source: Images) -> Iterator[Tensor]:
        for start in range(0, self.synthetic, _AT_ONCE):
            yield source.batch(min(_AT_ONCE, self.synthetic - start)).images

    @torch.no_grad()
    def samples(self) -> Samples | None:
        """Synthetic images to look at, as many of each class where there are classes.

        ``None`` of a method without images.
        """
        source = self.source
        if source is None:
            return None
        if not self.classifies:
            asked = source.ask(_SHOWN, source.bench.rng.asked)
            return Samples(source.make(asked).images.cpu())
        turns = torch.arange(_SHOWN, device=self.device) % self.spec.num_classes
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
        analysed = self._analysed_sites(student, images_used)
        if not self.classifies:
            return analysed
        return {**analysed, "answers": self.answers.as_json(labels)}

    def _analysed_sites(self, student: Student, images_used: int) -> dict[str, Any]:
        sites = len(student.quantized_weights()) + len(student.activation_quantizers())
        if not sites:
            return {}
        affordable = affordable_images(images_used)
        values = as_one(self.teacher(self.probe.bench.example())).numel() // 2
        count = image_count(sites, affordable, values)
        batches, task = list(self.probe.batches(count, _AT_ONCE)), self.task
        if isinstance(task, Regression):
            task = replace(task, names=("values",))  # the analysis looks at all in one row
        found = analyse(self.prepared, student, batches, affordable, task)
        return {"on": "probe images", **found}


def _require_ranges(student: Student) -> None:
    """Refuse a student that would round activations on a grid of no meaning."""
    if names := student.without_range():
        others = f" and {len(names) - 1} more" if len(names) > 1 else ""
        raise MethodError(
            f"the method never set the activation range of {names[0]}{others}",
            where="recovery",
            remedy="let a part of the method set ranges: Calibrate(), or RangesFromNoise() where "
            "it has no images",
        )
