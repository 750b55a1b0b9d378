"""DQDG: two generators whose classes lie apart; the student learns from masked sound."""

from __future__ import annotations

from dreamquant.methods.method import Method, Paper, Preset
from dreamquant.methods.published import published
from dreamquant.methods.quick import QUICK_IMAGENET
from dreamquant.recovery.train import Train
from dreamquant.synthesis.generator import Generator
from dreamquant.synthesis.targets import OneHot
from dreamquant.terms.classes import TeacherCrossEntropy
from dreamquant.terms.dual_generators import CentreDistance, TimeMaskedDistillation
from dreamquant.terms.statistics import BatchNormStatistics
from dreamquant.training.decay import Cosine

_QUICK = Preset(
    images={"batch": 32, "alone": 200, "observe": 200, "decay": Cosine()},
    recovery={
        "Train": {
            "iterations": 300,
            "batch": 32,
            "lr": 3e-4,
            "optimizer": "adam",
            "decay": Cosine(rise=30),
            "clip": 5.0,
        }
    },
    scheme={"ranges": "learned", "gradient": "clipped"},
)

dqdg = Method(
    name="dqdg",
    summary="for keyword spotting: two generators that differ; distillation under time masks",
    paper=Paper(
        title="DQDG: Data-Free Quantization With Dual Generators for Keyword Spotting",
        venue="IEEE SPL 2024",
        authors="Xu et al.",
        confirmed="the abstract alone: two generators under a constraint on the distance of "
        "centres, a selector of samples of high quality, distillation from time-masked samples",
        ours="all formulas and numbers, and GDFQ's generators, statistics and schedule below them; "
        "the teacher's probability of the target selects; rows of the image are time",
    ),
    images=Generator(
        [TeacherCrossEntropy(), 0.1 * BatchNormStatistics(), CentreDistance()],
        targets=OneHot(copies=2),
        networks=2,
    ),
    recovery=(Train([TimeMaskedDistillation(temperature=20)]),),
    presets={
        "quick": _QUICK,
        "quick-imagenet": Preset(
            images=QUICK_IMAGENET.images,
            recovery={"Train": QUICK_IMAGENET.recovery["Train"]},
            scheme=QUICK_IMAGENET.scheme,
        ),
        "paper": published(1e-4, batch=200, warm_up=4, milestones=(100, 200, 300)),
    },
)
