"""AdaDFQ: the generator keeps its images in a band of disagreement between teacher and student."""

from __future__ import annotations

from dreamquant.methods.method import Method, Paper, Preset
from dreamquant.methods.published import published
from dreamquant.methods.quick import QUICK, QUICK_IMAGENET
from dreamquant.recovery.norms import ReestimateNorms
from dreamquant.recovery.train import Train
from dreamquant.synthesis.generator import Generator
from dreamquant.terms.adaptability import Balance, Band
from dreamquant.terms.distillation import DifferenceEntropy
from dreamquant.terms.statistics import BatchNormStatistics


def _imagenet(
    lr: float, warm_up: int, milestones: tuple[int, ...], band: Band, balance: Balance
) -> Preset:
    return published(
        lr,
        batch=16,
        warm_up=warm_up,
        milestones=milestones,
        images={"terms": [band, balance, BatchNormStatistics()]},
        student_terms=[DifferenceEntropy(temperature=5)],
    )


adadfq = Method(
    name="adadfq",
    summary="images kept between disagreement and agreement of teacher and student",
    paper=Paper(
        title="Adaptive Data-Free Quantization",
        venue="CVPR 2023",
        authors="Qian et al.",
        confirmed="losses and schedules, from the released code and the poster; its CIFAR script "
        "does not run as released, so its numbers for CIFAR-10 are indicative",
        ours="ranges by an unbiased moving average; H' of a batch in full agreement is 0; "
        "last iteration reported, not the best",
    ),
    images=Generator(
        [Band(lower=0.1, upper=0.8), Balance(disagree=0.2, agree=0.1), BatchNormStatistics()]
    ),
    recovery=(ReestimateNorms(batches=0), Train([DifferenceEntropy(temperature=20)])),
    presets={
        "quick": QUICK,
        "quick-imagenet": QUICK_IMAGENET,
        "paper": published(1e-4, batch=16, warm_up=4, milestones=(100, 200, 300)),
        # ResNet-18 at 3 bits; the released configurations of other networks follow.
        "paper-imagenet": _imagenet(1e-5, 50, (350,), Band(0.1, 0.8), Balance(0.2, 0.1)),
        "paper-resnet18-w4": _imagenet(1e-5, 50, (350,), Band(0.3, 0.8), Balance(0.2, 0.1)),
        "paper-resnet50-w3": _imagenet(1e-4, 100, (150, 300), Band(0.4, 0.8), Balance(0.2, 0.1)),
        "paper-resnet50-w4": _imagenet(1e-4, 50, (200, 300), Band(0.3, 0.8), Balance(0.1, 0.1)),
        "paper-mobilenetv2-w4": _imagenet(1e-5, 50, (350,), Band(0.1, 0.8), Balance(0.3, 0.1)),
    },
)
