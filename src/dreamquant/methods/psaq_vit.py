"""PSAQ-ViT: images whose patches attention tells apart set a transformer's activation ranges."""

from __future__ import annotations

from dreamquant.methods.method import Method, Paper, Preset
from dreamquant.methods.transformers import QUICK_RANGES, QUICK_RANGES_LARGE
from dreamquant.recovery.calibrate import Calibrate
from dreamquant.synthesis.pixels import Pixels
from dreamquant.terms.classes import TeacherCrossEntropy
from dreamquant.terms.patch_similarity import PatchSimilarityEntropy
from dreamquant.terms.total_variation import TotalVariationTo
from dreamquant.training.decay import Cosine

psaq_vit = Method(
    name="psaq_vit",
    summary="for transformers: patch similarities of high entropy; ranges alone, no training",
    paper=Paper(
        title="Patch Similarity Aware Data-Free Quantization for Vision Transformers",
        venue="ECCV 2022",
        authors="Li et al.",
        confirmed="terms and weights, kernel density with its bandwidth and points, 32 images, "
        "Adam and its numbers, flips, rolls, clamping; from the released code",
        ours="one round of 1000 steps with rolls of up to 30 pixels, where the code has two of "
        "500, the first up to 15; the total variation asked for is the middle of its range, scaled "
        "with the image; the network's own class token is left out, where the code drops the first "
        "token; ranges of least squared error in place of min-max; weights are asymmetric",
    ),
    images=Pixels(
        [PatchSimilarityEntropy(), TeacherCrossEntropy(), 0.05 * TotalVariationTo(2500, 3000)],
        size=32,
        batch=32,
        steps=1000,
        lr=0.2,
        decay=Cosine(rise=100),
        betas=(0.5, 0.9),
        shift=30,
        flip=True,
        clamp=True,
    ),
    recovery=(Calibrate(count=32, batch=32),),
    scheme={"placement": "operands"},
    presets={
        "quick": QUICK_RANGES,
        "quick-imagenet": QUICK_RANGES_LARGE,
        "paper-imagenet": Preset(),
    },
)
