"""AdaDFQ: the generator keeps its images in a band of disagreement between teacher and student."""

from __future__ import annotations

from dreamquant.methods.method import Method, Paper, Preset
from dreamquant.methods.quick import QUICK, QUICK_IMAGENET
from dreamquant.methods.schedule import Schedule
from dreamquant.terms.adaptability import Balance, Band
from dreamquant.terms.distillation import DifferenceEntropy
from dreamquant.terms.statistics import BatchNormStatistics

EPOCH = 200


def _imagenet(student_lr: float, student_warmup: int, *milestones: int) -> Schedule:
    return Schedule(
        iterations=400 * EPOCH,
        batch=16,
        range_warmup=4 * EPOCH,
        student_warmup=student_warmup * EPOCH,
        student_lr=student_lr,
        milestones=tuple(epoch * EPOCH for epoch in milestones),
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
    generator_terms=[
        Band(lower=0.1, upper=0.8),
        Balance(disagree=0.2, agree=0.1),
        BatchNormStatistics(),
    ],
    student_terms=[DifferenceEntropy(temperature=20)],
    presets={
        "quick": QUICK,
        "quick-imagenet": QUICK_IMAGENET,
        "paper": Preset(
            Schedule(
                iterations=400 * EPOCH,
                batch=16,
                range_warmup=4 * EPOCH,
                student_warmup=4 * EPOCH,
                student_lr=1e-4,
                milestones=(100 * EPOCH, 200 * EPOCH, 300 * EPOCH),
            )
        ),
        # ResNet-18 at 3 bits; the released configurations of other networks follow.
        "paper-imagenet": Preset(
            _imagenet(1e-5, 50, 350), student_terms=[DifferenceEntropy(temperature=5)]
        ),
        "paper-resnet18-w4": Preset(
            _imagenet(1e-5, 50, 350),
            generator_terms=[Band(0.3, 0.8), Balance(0.2, 0.1), BatchNormStatistics()],
            student_terms=[DifferenceEntropy(temperature=5)],
        ),
        "paper-resnet50-w3": Preset(
            _imagenet(1e-4, 100, 150, 300),
            generator_terms=[Band(0.4, 0.8), Balance(0.2, 0.1), BatchNormStatistics()],
            student_terms=[DifferenceEntropy(temperature=5)],
        ),
        "paper-resnet50-w4": Preset(
            _imagenet(1e-4, 50, 200, 300),
            generator_terms=[Band(0.3, 0.8), Balance(0.1, 0.1), BatchNormStatistics()],
            student_terms=[DifferenceEntropy(temperature=5)],
        ),
        "paper-mobilenetv2-w4": Preset(
            _imagenet(1e-5, 50, 350),
            generator_terms=[Band(0.1, 0.8), Balance(0.3, 0.1), BatchNormStatistics()],
            student_terms=[DifferenceEntropy(temperature=5)],
        ),
    },
)
