"""Analysis of a finished student: which quantizers cost accuracy. The time is limited."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from dreamquant.evaluation.classes import Classification
from dreamquant.evaluation.majority import constant_agreement
from dreamquant.evaluation.rounding import Tally, activation_tallies, decibels, weight_tallies
from dreamquant.evaluation.sites import Site, answer_with, find_sites, quantizer_of, twin
from dreamquant.evaluation.task import Task
from dreamquant.quantization.student import Student

SCHEMA = 1
_MOST, _FEWEST = 256, 16  # number of images
_VALUES, _LEAST = 2**25, 4  # largest number of output values, smallest number of images
_CLASSIFICATION = Classification()
_SHARE = 0.4  # of the images of a run's training; a training image costs about ten forward passes


def analyse(
    teacher: nn.Module,
    student: Student,
    batches: Sequence[Tensor],
    affordable: int,
    task: Task = _CLASSIFICATION,
) -> dict[str, Any]:
    """Ranges, clipping, signal-to-noise ratio and sensitivity of every site, as plain values.

    Sensitivity is measured on the teacher while it rounds at one site only. If there are too many
    sites, those with the smallest signal-to-noise ratios are measured.

    Args:
        teacher: the full-precision network, in eval mode.
        student: the finished student of this teacher.
        batches: images (B, C, H, W) each.
        affordable: largest number of images in forward passes, summed over all sites.
        task: task of both; several outputs are concatenated to one row of values.
    """
    teacher = twin(teacher, student)
    sites = find_sites(teacher, student, batches[0][:2])
    weights = weight_tallies(teacher, student)
    inputs = [site for site in sites if site.kind != "weight"]
    activations, answers = activation_tallies(student, inputs, batches)
    tallies = {
        site: weights[site.layer] if site.kind == "weight" else activations[site] for site in sites
    }
    wanted = answer_with(teacher, student, (), batches)
    decisions = task.decisions(wanted)
    looked_at = _worst(tallies, affordable // len(wanted))
    alone = {
        site: _compared(answer_with(teacher, student, [site], batches), wanted, task)
        for site in looked_at
    }
    return {
        "schema": SCHEMA,
        "images": len(wanted),
        "constant_agreement": None if decisions is None else constant_agreement(decisions),
        "student": _compared(answers, wanted, task),
        "rounded": _compared(answer_with(teacher, student, sites, batches), wanted, task),
        "sites": [
            {**_described(site, student), **tallies[site].as_json(), "alone": alone.get(site)}
            for site in sites
        ],
    }


def affordable_images(trained_on: int) -> int:
    """The number of images in forward passes for a run that trained on ``trained_on`` images."""
    return int(_SHARE * trained_on)


def image_count(sites: int, affordable: int, values: int = 1) -> int:
    """The number of images for the analysis of a student.

    Args:
        sites: number of its sites.
        affordable: see :func:`analyse`.
        values: number of output values of an image; outputs of all images are kept.
    """
    fitting = max(_LEAST, _VALUES // values)
    return min(fitting, max(_FEWEST, min(_MOST, affordable // max(sites, 1))))


def _worst(tallies: dict[Site, Tally], count: int) -> set[Site]:
    def quality(site: Site) -> float:
        sqnr = tallies[site].sqnr
        return float("inf") if sqnr is None else sqnr

    return set(sorted(tallies, key=quality)[:count])


def _compared(given: Tensor, wanted: Tensor, task: Task) -> dict[str, Any]:
    """Compare outputs (N, ...) with the teacher's: agreement in percent, and dB."""
    agreement = task.agreement(task.agree(given, wanted))
    noise = (given - wanted).double().square().sum().item()
    return {
        "agreement": agreement.percent,
        "ci95": list(agreement.ci95),
        "sqnr": decibels(wanted.double().square().sum().item(), noise),
    }


def _described(site: Site, student: Student) -> dict[str, Any]:
    described = {"kind": site.kind, "layer": site.layer, "position": site.position}
    if site.kind == "weight":
        quantizer = student.quantized_weight(site.layer).quantizer
        return described | {"bits": quantizer.bits, "scale": None, "zero_point": None}
    activation = quantizer_of(student, site)
    scale, zero_point = activation.scale.item(), int(activation.zero_point)
    return described | {"bits": activation.bits, "scale": scale, "zero_point": zero_point}
