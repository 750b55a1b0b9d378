"""DynaDFQ's targets: hard but plausible images lie among similar classes."""

from __future__ import annotations

from dreamquant.methods.method import AddOn, Paper
from dreamquant.synthesis.class_mixtures import SimilarClasses

dynadfq = AddOn(
    name="dynadfq",
    summary="soft labels over similar classes for half of the images",
    paper=Paper(
        title="Difficulty, Diversity, and Plausibility: Dynamic Data-Free Quantization",
        venue="WACV 2025",
        authors="as in the paper",
        confirmed="from the abstracts of two versions: soft labels on a group of similar classes "
        "make images plausibly hard, similarity comes from the weights of the last layer, and "
        "images of all difficulties are wanted",
        ours="inner products of rows, groups of three, half of the images, uniform probabilities; "
        "add-on to methods with a generator. Its bits chosen for each image are left out: one "
        "network of fixed bits is what files hold",
    ),
    targets=SimilarClasses(),
)
