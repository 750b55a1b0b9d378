"""GapSSG: how far the student is behind decides what the generator seeks; for distillation."""

from __future__ import annotations

from dreamquant.methods.method import Method, Paper
from dreamquant.methods.published import published
from dreamquant.methods.quick import QUICK, QUICK_IMAGENET
from dreamquant.recovery.norms import ReestimateNorms
from dreamquant.recovery.train import Train
from dreamquant.synthesis.generator import Generator
from dreamquant.terms.gap import GapBalance
from dreamquant.terms.image_distillation import ImageDistillation
from dreamquant.terms.statistics import BatchNormStatistics

gapssg = Method(
    name="gapssg",
    summary="for distillation: images by how far the student is behind the teacher",
    paper=Paper(
        title="Unpacking the Gap Box Against Data-Free Knowledge Distillation",
        venue="IEEE TPAMI 2024",
        authors="Wang et al.",
        confirmed="the generator's losses and weights 0.5 and 0.2, the gap, divergence at "
        "temperature 20, from the released code",
        ours="one conditional generator in turns with the student, where the code makes a fresh "
        "one for each round and keeps its best batch in a pool; no crops and flips; statistics by "
        "squares; schedules of the other methods, also for quantization, which it was not made for",
    ),
    images=Generator([BatchNormStatistics(), 0.5 * GapBalance()]),
    recovery=(ReestimateNorms(batches=0), Train([ImageDistillation(temperature=20)])),
    presets={
        "quick": QUICK,
        "quick-imagenet": QUICK_IMAGENET,
        "paper": published(1e-4, batch=200, warm_up=4, milestones=(100, 200, 300)),
        "paper-imagenet": published(1e-6, batch=16, warm_up=50, milestones=(100, 200, 300)),
    },
)
