"""PLF: labels where the teacher is sure of an image, two classes where it is not."""

from __future__ import annotations

from dreamquant.methods.method import Method, Paper
from dreamquant.methods.stored import QUICK, QUICK_IMAGENET, published
from dreamquant.recovery.calibrate import Calibrate
from dreamquant.recovery.train import Train
from dreamquant.synthesis.pixels import Pixels
from dreamquant.terms.classes import TeacherCrossEntropy
from dreamquant.terms.contract import Terms
from dreamquant.terms.feature_matching import FeatureMatching
from dreamquant.terms.image_distillation import ImageDistillation
from dreamquant.terms.pseudo_labels import PseudoLabels
from dreamquant.terms.statistics import BatchNormStatistics


def _student(threshold: float, auxiliary: float, features: float) -> Terms:
    return [
        ImageDistillation(temperature=1),
        PseudoLabels(threshold=threshold, auxiliary=auxiliary),
        features * FeatureMatching(),
    ]


plf = Method(
    name="plf",
    summary="pseudo-labels filtered by the teacher's entropy; features matched",
    paper=Paper(
        title="Data-Free Quantization via Pseudo-label Filtering",
        venue="CVPR 2024",
        authors="Fan et al.",
        confirmed="losses and weights (10 x cross-entropy, 0.3, 100 on CIFAR; 0.1, 0.5, 4000 on "
        "ImageNet), two classes by their probabilities, 5120 images, from the paper",
        ours="the threshold stays in the middle of the paper's range, which it passes through "
        "while training; KL at temperature 1, mean over images; features at every batch norm's "
        "output; batch size; ranges of least squared error on the stored images",
    ),
    images=Pixels([BatchNormStatistics(), 10.0 * TeacherCrossEntropy()]),
    recovery=(Calibrate(), Train(_student(0.35, 0.3, 100.0))),
    presets={
        "quick": QUICK,
        "quick-imagenet": QUICK_IMAGENET,
        "paper": published(1e-3, batch=256),
        "paper-imagenet": published(
            1e-5,
            batch=16,
            images={"terms": [BatchNormStatistics(), 0.1 * TeacherCrossEntropy()]},
            train={"terms": _student(0.25, 0.5, 4000.0)},
        ),
    },
)
