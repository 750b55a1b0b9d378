"""MaskAQ: attention that differs by query and survives quantization, on images made anew."""

from __future__ import annotations

from dreamquant.methods.method import Method, Paper, Preset
from dreamquant.methods.transformers import QUICK, QUICK_LARGE
from dreamquant.recovery.calibrate import Calibrate
from dreamquant.recovery.redream import Redream
from dreamquant.recovery.train import Train
from dreamquant.synthesis.pixels import Pixels
from dreamquant.terms.classes import TeacherCrossEntropy
from dreamquant.terms.contract import Terms
from dreamquant.terms.head_distillation import StructureDistillation
from dreamquant.terms.head_similarity import HeadSimilarity
from dreamquant.terms.image_distillation import ImageDistillation
from dreamquant.terms.masked_attention import AttentionDiversity, MaskedAlignment
from dreamquant.terms.total_variation import TotalVariation

_IMAGES: Terms = [
    HeadSimilarity(),
    TeacherCrossEntropy(),
    2.5e-5 * TotalVariation(),
    AttentionDiversity(),
]
_LEARN = Train([ImageDistillation(temperature=20), 10.0 * StructureDistillation()])
_AGAIN = Redream([*_IMAGES, 0.1 * MaskedAlignment()], steps=50)
_PAPER = Preset(
    images={"size": 10_000, "batch": 32, "steps": 2000, "shift": 16},
    recovery={
        "Train": {"iterations": 50 * 625, "batch": 16, "lr": 1e-6},
        "Redream": {"steps": 2000},
    },
    scheme={"ranges": "learned", "gradient": "clipped"},
)

maskaq = Method(
    name="maskaq",
    summary="for transformers: diverse attention rows; images aligned with the student meanwhile",
    paper=Paper(
        title="Selective Coupling of Decoupled Informative Regions: Masked Attention Alignment for "
        "Data-Free Quantization of Vision Transformers",
        venue="ICML 2026",
        authors="Qian et al.",
        confirmed="terms and weights of the images, 2000 steps of 10,000 images, images made again "
        "as the student learns, distillation at temperature 20, structure part of SSIM with "
        "attended tokens doubled; from a reading of the released code",
        ours="images are made again once, halfway, from what they are; the alignment joins there, "
        "its mask 30 % of the patches throughout, where the code lets it fall from 50 to 10 %; the "
        "weight of head distillation is MimiQ's; one window for SSIM; no noise or colour jitter; "
        "student's rate as MimiQ",
    ),
    images=Pixels(_IMAGES, lr=0.1, clamp=True),
    recovery=(Calibrate(), _LEARN, _AGAIN, _LEARN),
    scheme={"placement": "operands"},
    presets={"quick": QUICK, "quick-imagenet": QUICK_LARGE, "paper-imagenet": _PAPER},
)
