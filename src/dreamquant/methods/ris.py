"""RIS: images whose answer is robust, with soft labels of little correlation; an add-on."""

from __future__ import annotations

from dreamquant.methods.method import AddOn, Paper
from dreamquant.synthesis.targets import LowCorrelation
from dreamquant.terms.robustness import InputRobustness, WeightRobustness

ris = AddOn(
    name="ris",
    summary="robustness of the teacher's answer to views and weight noise; soft labels",
    paper=Paper(
        title="Robustness-Guided Image Synthesis for Data-Free Quantization",
        venue="AAAI 2024",
        authors="Bai et al.",
        confirmed="the ideas, from the abstract and a digest: one augmentation drawn at random, "
        "Gaussian weight noise, inconsistency of features and predictions by cosine and L1, a "
        "threshold that refers to noise images, soft labels of small correlation; add-on to "
        "GDFQ and others",
        ours="no code is public: the hinge, gradient through both branches, n = m = 1, noise 0.02, "
        "threshold 0.5, weights 1, how labels are chosen",
    ),
    generator_terms=[InputRobustness(views=1), WeightRobustness(copies=1, noise=0.02)],
    targets=LowCorrelation(lowest=0.6),
)
