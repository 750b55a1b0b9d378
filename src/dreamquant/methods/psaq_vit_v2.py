"""PSAQ-ViT V2: images and student evolve in turns, without labels."""

from __future__ import annotations

from dreamquant.methods.method import Method, Paper
from dreamquant.methods.transformers import QUICK, QUICK_LARGE
from dreamquant.recovery.calibrate import Calibrate
from dreamquant.recovery.redream import Redream
from dreamquant.recovery.train import Train
from dreamquant.synthesis.pixels import Pixels
from dreamquant.terms.contract import Terms
from dreamquant.terms.logits import LogitMatching
from dreamquant.terms.patch_similarity import PatchSimilarityEntropy
from dreamquant.terms.total_variation import TotalVariationTo

_IMAGES: Terms = [PatchSimilarityEntropy(), 0.05 * TotalVariationTo(2500, 3000)]
_LEARN = Train([LogitMatching()])

psaq_vit_v2 = Method(
    name="psaq_vit_v2",
    summary="for transformers: patch similarity without labels; images compete with the student",
    paper=Paper(
        title="PSAQ-ViT V2: Towards Accurate and General Data-Free Quantization for Vision "
        "Transformers",
        venue="IEEE TNNLS 2023",
        authors="Li et al.",
        confirmed="the abstract alone: patch similarity as in PSAQ-ViT, no labels, images and "
        "student evolve in turns, in competition, under the teacher",
        ours="all else: squared gap of logits, which the student minimises and the images "
        "maximise; one turn of the images between two of the student",
    ),
    images=Pixels(_IMAGES, lr=0.2, betas=(0.5, 0.9), shift=4, flip=True, clamp=True),
    recovery=(
        Calibrate(),
        _LEARN,
        Redream([*_IMAGES, -1.0 * LogitMatching()], steps=50),
        _LEARN,
    ),
    scheme={"placement": "operands"},
    presets={"quick": QUICK, "quick-imagenet": QUICK_LARGE},
)
