"""IntraQ: images of a class that differ from each other, and half of them not too sure."""

from __future__ import annotations

from dreamquant.methods.method import Method, Paper
from dreamquant.methods.stored import QUICK, QUICK_IMAGENET, published
from dreamquant.recovery.calibrate import Calibrate
from dreamquant.recovery.train import Train
from dreamquant.synthesis.pixels import Pixels
from dreamquant.synthesis.targets import HalfSoft
from dreamquant.terms.class_distance import MarginalDistance
from dreamquant.terms.distillation import StudentCrossEntropy
from dreamquant.terms.image_distillation import ImageDistillation
from dreamquant.terms.soft_inception import SoftInception
from dreamquant.terms.statistics import BatchNormStatistics

intraq = Method(
    name="intraq",
    summary="marginal distances within classes, soft inception of half of the images",
    paper=Paper(
        title="IntraQ: Learning Synthetic Images with Intra-Class Heterogeneity for Zero-Shot "
        "Network Quantization",
        venue="CVPR 2022",
        authors="Zhong et al.",
        confirmed="margins, targets, losses and schedules, from the released code (numbers of "
        "CIFAR-10; those of ImageNet switch margins and soft targets off)",
        ours="class centres are those of the batch, where the code averages over earlier batches; "
        "soft targets spread their rest evenly and reach the student's cross-entropy; flips alone "
        "in place of random crops; ranges of least squared error on the stored images; the rate "
        "of images falls by a cosine and not on plateaus",
    ),
    images=Pixels(
        [BatchNormStatistics(), SoftInception(), MarginalDistance(lower=0.05, upper=0.8)],
        targets=HalfSoft(lowest=0.95),
        flip=True,
    ),
    recovery=(
        Calibrate(),
        Train([StudentCrossEntropy(), 20.0 * ImageDistillation(temperature=20)]),
    ),
    presets={
        "quick": QUICK,
        "quick-imagenet": QUICK_IMAGENET,
        "paper": published(1e-4, batch=256, milestones=(16, 36, 56)),
        "paper-imagenet": published(1e-6, batch=16, images={"targets": HalfSoft(lowest=1.0)}),
    },
)
