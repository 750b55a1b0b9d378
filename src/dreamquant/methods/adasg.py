"""AdaSG: the zero-sum game of which AdaDFQ is the generalisation, with its numbers."""

from __future__ import annotations

from dataclasses import replace

from dreamquant.methods.adadfq import adadfq
from dreamquant.methods.method import Paper
from dreamquant.methods.published import published
from dreamquant.synthesis.generator import Generator
from dreamquant.terms.adaptability import Balance, Band
from dreamquant.terms.distillation import DifferenceEntropy
from dreamquant.terms.statistics import BatchNormStatistics

_PRESETS = ("quick", "quick-imagenet", "paper")

adasg = replace(
    adadfq,
    name="adasg",
    summary="AdaDFQ with equal balance weights and a tighter band",
    paper=Paper(
        title="Rethinking Data-Free Quantization as a Zero-Sum Game",
        venue="AAAI 2023",
        authors="Qian et al.",
        confirmed="the special case of AdaDFQ that its authors name, with the constants of the "
        "released trainer",
        ours="AdaDFQ's schedules; ranges by an unbiased moving average; last iteration reported",
    ),
    images=Generator(
        [Band(lower=0.3, upper=0.8), Balance(disagree=0.1, agree=0.1), BatchNormStatistics()]
    ),
    presets={
        **{name: adadfq.presets[name] for name in _PRESETS},
        "paper-imagenet": published(
            1e-5,
            batch=16,
            warm_up=50,
            milestones=(350,),
            student_terms=[DifferenceEntropy(temperature=5)],
        ),
    },
)
