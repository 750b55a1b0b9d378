"""HAST: images that the teacher finds hard, made harder still while the student learns."""

from __future__ import annotations

from dreamquant.methods.method import Method, Paper
from dreamquant.methods.stored import QUICK, QUICK_IMAGENET, published
from dreamquant.recovery.calibrate import Calibrate
from dreamquant.recovery.promotion import Promotion
from dreamquant.recovery.train import Train
from dreamquant.synthesis.pixels import Pixels
from dreamquant.terms.channel_attention import ChannelAttention
from dreamquant.terms.focal import FocalCrossEntropy
from dreamquant.terms.image_distillation import ImageDistillation
from dreamquant.terms.statistics import BatchNormStatistics

hast = Method(
    name="hast",
    summary="stored images of high difficulty, promoted further; channel attention",
    paper=Paper(
        title="Hard Sample Matters a Lot in Zero-Shot Quantization",
        venue="CVPR 2023",
        authors="Li et al.",
        confirmed="losses and their weights, difficulty promotion, 5120 images of 1000 steps, "
        "schedules, from the released code",
        ours="attention at every batch norm's output, where the code has the ends of blocks; "
        "ranges of least squared error on the stored images, where it has a generator's; the rate "
        "of images falls by a cosine and not on plateaus; no crops; promotion goes up the loss "
        "through the teacher too, and both losses are averaged, not summed",
    ),
    images=Pixels([BatchNormStatistics(), 10.0 * FocalCrossEntropy(power=2.0)]),
    recovery=(
        Calibrate(),
        Train(
            [20.0 * ImageDistillation(temperature=20), 1000.0 * ChannelAttention()],
            views=(Promotion(step=0.01),),
        ),
    ),
    presets={
        "quick": QUICK,
        "quick-imagenet": QUICK_IMAGENET,
        "paper": published(1e-5, batch=256, milestones=(16, 36, 56)),
        "paper-imagenet": published(
            1e-6,
            batch=16,
            images={"terms": [BatchNormStatistics(), 0.1 * FocalCrossEntropy(power=0.5)]},
            train={
                "terms": [20.0 * ImageDistillation(temperature=20), 4000.0 * ChannelAttention()]
            },
        ),
    },
)
