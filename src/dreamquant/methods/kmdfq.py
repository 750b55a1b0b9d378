"""KMDFQ: GDFQ's generator with full statistics, and a student that matches logits."""

from __future__ import annotations

from dreamquant.methods.method import Method, Paper
from dreamquant.methods.published import published
from dreamquant.methods.quick import QUICK, QUICK_IMAGENET
from dreamquant.recovery.norms import ReestimateNorms
from dreamquant.recovery.train import Train
from dreamquant.synthesis.generator import Generator
from dreamquant.terms.classes import TeacherCrossEntropy
from dreamquant.terms.distillation import StudentCrossEntropy
from dreamquant.terms.logits import LogitMatching
from dreamquant.terms.statistics import BatchNormStatistics

kmdfq = Method(
    name="kmdfq",
    summary="class-conditional generator; cross-entropy and squared gaps of logits",
    paper=Paper(
        title="the released code KMDFQ, of the authors of AGM",
        venue="IEEE TCSVT 2023",
        authors="Luo, Zhang et al.",
        confirmed="losses, weights and schedules, from the released code",
        ours="ranges by an unbiased moving average; last iteration reported, not the best",
    ),
    images=Generator([TeacherCrossEntropy(), BatchNormStatistics()]),
    recovery=(ReestimateNorms(batches=0), Train([StudentCrossEntropy(), LogitMatching()])),
    presets={
        "quick": QUICK,
        "quick-imagenet": QUICK_IMAGENET,
        "paper": published(1e-4, batch=200, warm_up=20, milestones=(100, 200, 300)),
        "paper-imagenet": published(1e-6, batch=16, warm_up=50, milestones=(100, 200, 300)),
    },
)
