"""GDFQ: a generator makes images that fit the teacher, and the student is distilled on them."""

from __future__ import annotations

from dreamquant.methods.method import Method, Paper
from dreamquant.methods.published import published
from dreamquant.methods.quick import QUICK_IMAGENET, quick
from dreamquant.recovery.norms import ReestimateNorms
from dreamquant.recovery.train import Train
from dreamquant.synthesis.generator import Generator
from dreamquant.terms.classes import TeacherCrossEntropy
from dreamquant.terms.distillation import KnowledgeDistillation, StudentCrossEntropy
from dreamquant.terms.statistics import BatchNormStatistics

# The student's cross-entropy teaches it labels that the generator has yet to learn to draw: with
# the shared numbers a 3-bit ResNet-20 ends where rounding alone left it. So the generator learns
# alone for longer, and the student more gently (three times this rate: 1.3 points less).
_QUICK = quick(batch=32, alone=240, iterations=360, lr=1e-4, rise=50)

gdfq = Method(
    name="gdfq",
    summary="class-conditional generator on teacher's labels and statistics; CE + KL distillation",
    paper=Paper(
        title="Generative Low-bitwidth Data Free Quantization",
        venue="ECCV 2020",
        authors="Xu et al.",
        confirmed="losses, weights, schedule and generators, from the released code",
        ours="ranges by an unbiased moving average; last iteration reported, not the best",
    ),
    images=Generator([TeacherCrossEntropy(), 0.1 * BatchNormStatistics()]),
    recovery=(
        ReestimateNorms(batches=0),
        Train([StudentCrossEntropy(), KnowledgeDistillation(temperature=20)]),
    ),
    presets={
        "quick": _QUICK,
        "quick-imagenet": QUICK_IMAGENET,
        "paper": published(1e-4, batch=200, warm_up=4, milestones=(100, 200, 300)),
        "paper-imagenet": published(1e-6, batch=16, warm_up=50, milestones=(100, 200, 300)),
    },
)
