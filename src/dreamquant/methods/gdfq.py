"""GDFQ: a generator makes images that fit the teacher, and the student is distilled on them."""

from __future__ import annotations

from dataclasses import replace

from dreamquant.methods.method import Method, Paper, Preset
from dreamquant.methods.quick import QUICK, QUICK_IMAGENET
from dreamquant.methods.schedule import Schedule
from dreamquant.terms.classes import TeacherCrossEntropy
from dreamquant.terms.distillation import KnowledgeDistillation, StudentCrossEntropy
from dreamquant.terms.statistics import BatchNormStatistics

EPOCH = 200

# The student's cross-entropy teaches it labels that the generator has yet to learn to draw: with
# the shared numbers a 3-bit ResNet-20 ends where rounding alone left it. So the generator learns
# alone for longer, and the student more gently (three times this rate: 1.3 points less).
_QUICK = replace(
    QUICK,
    schedule=replace(
        QUICK.schedule,
        iterations=600,
        batch=32,
        range_warmup=240,
        student_warmup=240,
        student_lr=1e-4,
        lr_warmup=50,
    ),
)

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
    generator_terms=[TeacherCrossEntropy(), 0.1 * BatchNormStatistics()],
    student_terms=[StudentCrossEntropy(), KnowledgeDistillation(temperature=20)],
    presets={
        "quick": _QUICK,
        "quick-imagenet": QUICK_IMAGENET,
        "paper": Preset(
            Schedule(
                iterations=400 * EPOCH,
                batch=200,
                range_warmup=4 * EPOCH,
                student_warmup=4 * EPOCH,
                student_lr=1e-4,
                milestones=(100 * EPOCH, 200 * EPOCH, 300 * EPOCH),
            )
        ),
        "paper-imagenet": Preset(
            Schedule(
                iterations=400 * EPOCH,
                batch=16,
                range_warmup=4 * EPOCH,
                student_warmup=50 * EPOCH,
                student_lr=1e-6,
                milestones=(100 * EPOCH, 200 * EPOCH, 300 * EPOCH),
            )
        ),
    },
)
