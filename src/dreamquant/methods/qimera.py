"""Qimera: the generator superposes embeddings of classes, for images at their boundaries."""

from __future__ import annotations

from typing import Any

from dreamquant.methods.method import Method, Paper, Preset
from dreamquant.methods.published import published
from dreamquant.methods.quick import QUICK, QUICK_IMAGENET
from dreamquant.recovery.norms import ReestimateNorms
from dreamquant.recovery.train import Train
from dreamquant.synthesis.class_mixtures import Superposition
from dreamquant.synthesis.embeddings import Superposed
from dreamquant.synthesis.generator import Generator
from dreamquant.terms.classes import TeacherCrossEntropy
from dreamquant.terms.distillation import KnowledgeDistillation, StudentCrossEntropy
from dreamquant.terms.statistics import BatchNormStatistics


def _small(**images: Any) -> Preset:
    return published(1e-4, batch=200, warm_up=4, milestones=(100, 200, 300), images=images)


def _imagenet(**images: Any) -> Preset:
    return published(1e-6, batch=16, warm_up=50, milestones=(100, 200, 300), images=images)


qimera = Method(
    name="qimera",
    summary="superposed class embeddings make images at class boundaries; soft CE + KL",
    paper=Paper(
        title="Qimera: Data-free Quantization with Synthetic Boundary Supporting Samples",
        venue="NeurIPS 2021",
        authors="Choi et al.",
        confirmed="losses, superposition, embeddings and schedules, from the released code, whose "
        "scripts run without the disentangling map that the paper has",
        ours="one noise for all classes of an image; each sum of embedding and noise normalised "
        "by itself; ranges by an unbiased moving average; last iteration reported, not the best",
    ),
    images=Generator(
        [TeacherCrossEntropy(), 0.1 * BatchNormStatistics()],
        targets=Superposition(probability=0.4, count=2),
        embedding=Superposed("random"),
        latent=64,
    ),
    recovery=(
        ReestimateNorms(batches=0),
        Train([StudentCrossEntropy(), KnowledgeDistillation(temperature=20)]),
    ),
    presets={
        "quick": QUICK,
        "quick-imagenet": QUICK_IMAGENET,
        "paper": _small(),
        "paper-cifar100": _small(
            targets=Superposition(0.4, 10), embedding=Superposed("classifier")
        ),
        "paper-imagenet": _imagenet(targets=Superposition(0.4, 500), latent=512),
    },
)
