"""AdaSG: the zero-sum game of which AdaDFQ is the generalisation, with its numbers."""

from __future__ import annotations

from dataclasses import replace

from dreamquant.methods.adadfq import adadfq
from dreamquant.methods.method import Paper
from dreamquant.terms.adaptability import Balance, Band
from dreamquant.terms.statistics import BatchNormStatistics

_TERMS = [Band(lower=0.3, upper=0.8), Balance(disagree=0.1, agree=0.1), BatchNormStatistics()]
_PRESETS = ("quick", "quick-imagenet", "paper", "paper-imagenet")

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
    generator_terms=_TERMS,
    presets={name: adadfq.presets[name] for name in _PRESETS},
)
