"""TexQ: a calibration image of each class, with few textures, guides a generator."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from dreamquant.methods.method import Method, Paper, Preset
from dreamquant.methods.published import published
from dreamquant.methods.quick import QUICK, QUICK_IMAGENET
from dreamquant.recovery.norms import ReestimateNorms
from dreamquant.recovery.train import Train
from dreamquant.recovery.views import Mixup
from dreamquant.synthesis.calibrated import Calibrated
from dreamquant.synthesis.generator import Generator
from dreamquant.synthesis.pixels import Pixels
from dreamquant.terms.centres import CentreDistance
from dreamquant.terms.classes import TeacherCrossEntropy
from dreamquant.terms.distillation import KnowledgeDistillation
from dreamquant.terms.layered import LayeredStatistics
from dreamquant.terms.texture import TextureEnergy

_FALLS = (100, 200, 300)  # epochs after which learning rates fall
_IMAGES = Calibrated(
    calibration=Pixels(
        [LayeredStatistics(), 5.0 * TeacherCrossEntropy(), TextureEnergy()], steps=1500, lr=0.5
    ),
    generator=Generator([TeacherCrossEntropy(), LayeredStatistics(), CentreDistance()]),
)


def _preset(shared: Preset, **calibration: Any) -> Preset:
    optimised = replace(_IMAGES.calibration, **calibration)
    learned = replace(_IMAGES.generator, **shared.images)
    return replace(shared, images={"calibration": optimised, "generator": learned})


texq = Method(
    name="texq",
    summary="calibration images with few textures guide a generator; mixed images",
    paper=Paper(
        title="TexQ: Zero-shot Network Quantization with Texture Feature Distribution Calibration",
        venue="NeurIPS 2023",
        authors="Chen et al.",
        confirmed="two stages, layered statistics at 0.2 and 1.1, cross-entropy at 5, nine "
        "dominant of Laws' texture energies, mixed images with the teacher's answers, at most 1500 "
        "steps, batches; from the abstract, summaries and a re-implementation of parts",
        ours="the formulas of texture energy and of the distance to centres, the distance's bounds "
        "and weight; the generator's schedule (GDFQ's) and temperature 20; statistics of centres "
        "in units of stored deviations; ResNet-20 and ResNet-18 presets alone",
    ),
    images=_IMAGES,
    recovery=(ReestimateNorms(batches=0), Train([KnowledgeDistillation(20)], views=(Mixup(),))),
    presets={
        "quick": _preset(QUICK, batch=64, steps=100, lr=0.1),
        "quick-imagenet": _preset(QUICK_IMAGENET, batch=32, steps=30, lr=0.1),
        "paper": _preset(published(1e-4, batch=128, warm_up=4, milestones=_FALLS)),
        "paper-imagenet": _preset(published(1e-6, batch=16, warm_up=50, milestones=_FALLS)),
    },
)
