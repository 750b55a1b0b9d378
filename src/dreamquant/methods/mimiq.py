"""MimiQ: images on which heads of attention agree; distillation of what each head gives."""

from __future__ import annotations

from dreamquant.methods.method import Method, Paper, Preset
from dreamquant.methods.transformers import QUICK, QUICK_LARGE
from dreamquant.recovery.calibrate import Calibrate
from dreamquant.recovery.train import Train
from dreamquant.synthesis.pixels import Pixels
from dreamquant.terms.classes import TeacherCrossEntropy
from dreamquant.terms.distillation import StudentCrossEntropy
from dreamquant.terms.head_distillation import HeadDistillation
from dreamquant.terms.head_similarity import HeadSimilarity
from dreamquant.terms.image_distillation import ImageDistillation
from dreamquant.terms.total_variation import TotalVariation

_PAPER = Preset(
    images={"size": 10_000, "batch": 32, "steps": 2000, "shift": 16},
    recovery={"Train": {"iterations": 200 * 313, "batch": 32, "lr": 1e-6}},
    scheme={"ranges": "learned", "gradient": "clipped"},
)

mimiq = Method(
    name="mimiq",
    summary="for transformers: images on which heads agree; distillation of heads' outputs",
    paper=Paper(
        title="MimiQ: Low-Bit Data-Free Quantization of Vision Transformers with Encouraging "
        "Inter-Head Attention Similarity",
        venue="AAAI 2025",
        authors="Choi et al.",
        confirmed="the abstract; at second hand losses, their weights, 10,000 images of 2000 steps "
        "and the schedule, from others' descriptions and from MaskAQ's code, which holds it",
        ours="SSIM with one window over a whole map; temperature 20, as MaskAQ; outputs of heads "
        "scaled to [0, 1] for SSIM; no colour jitter, noise or blur; no warm-up in epochs",
    ),
    images=Pixels(
        [HeadSimilarity(), TeacherCrossEntropy(), 2.5e-5 * TotalVariation()],
        lr=0.1,
        flip=True,
        clamp=True,
    ),
    recovery=(
        Calibrate(),
        Train(
            [ImageDistillation(temperature=20), StudentCrossEntropy(), 10.0 * HeadDistillation()]
        ),
    ),
    scheme={"placement": "operands"},
    presets={"quick": QUICK, "quick-imagenet": QUICK_LARGE, "paper-imagenet": _PAPER},
)
