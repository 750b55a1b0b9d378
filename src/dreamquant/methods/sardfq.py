"""SARDFQ: attention after random priors, several things in an image; blocks are reconstructed."""

from __future__ import annotations

from dreamquant.methods.method import Method, Paper, Preset
from dreamquant.methods.transformers import QUICK_RANGES, QUICK_RANGES_LARGE
from dreamquant.recovery.calibrate import Calibrate
from dreamquant.recovery.reconstruct import Reconstruct
from dreamquant.synthesis.pixels import Pixels
from dreamquant.synthesis.targets import Mixtures, Regions, SoftLogits
from dreamquant.terms.attention_priors import AttentionPriors, RegionCrossEntropy
from dreamquant.terms.classes import TeacherCrossEntropy
from dreamquant.terms.total_variation import TotalVariationTo

sardfq = Method(
    name="sardfq",
    summary="for transformers: attention priors, regions with labels of their own; reconstruction",
    paper=Paper(
        title="Semantic Alignment and Reinforcement for Data-Free Quantization of Vision "
        "Transformers (first named SPDFQ)",
        venue="ICCV 2025",
        authors="Zhong et al.",
        confirmed="the abstract; at second hand: priors of Gaussian mixtures for the class "
        "token's attention in the deeper half, one to four regions an image, soft targets with "
        "logits of 5 to 10, 32 images of 1000 steps, 100 steps of reconstruction a block",
        ours="weight 1 of the priors, which the paper searches for each network; sizes of mixtures "
        "and regions; total variation toward PSAQ-ViT's; the project's reconstruction, with "
        "rounding learned too; linear grid for softmax, where the paper has powers of two",
    ),
    images=Pixels(
        [
            TeacherCrossEntropy(),
            AttentionPriors(),
            RegionCrossEntropy(),
            0.05 * TotalVariationTo(2500, 3000),
        ],
        size=32,
        batch=32,
        steps=1000,
        lr=0.2,
        clamp=True,
        targets=SoftLogits(5, 10),
        conditions=(Mixtures(), Regions()),
    ),
    recovery=(Calibrate(count=32, batch=32), Reconstruct(count=32, batch=32, steps=100)),
    scheme={"placement": "operands"},
    presets={
        "quick": QUICK_RANGES,
        "quick-imagenet": QUICK_RANGES_LARGE,
        "paper-imagenet": Preset(),
    },
)
