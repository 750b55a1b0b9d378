"""ZAQ: the generator seeks images on which student and teacher differ; outputs alone are read."""

from __future__ import annotations

from dreamquant.methods.method import Method, Paper
from dreamquant.methods.published import published
from dreamquant.methods.quick import QUICK, QUICK_IMAGENET, in_turns
from dreamquant.recovery.norms import ReestimateNorms
from dreamquant.recovery.train import Train
from dreamquant.synthesis.generator import Generator
from dreamquant.synthesis.targets import Nothing
from dreamquant.terms.feature_relations import FeatureRelations
from dreamquant.terms.outputs import Activity, OutputDistance

_TURNS = 5
_RELATIONS = FeatureRelations(side=32)

zaq = Method(
    name="zaq",
    summary="adversarial images by outputs and feature relations alone; five turns to one",
    paper=Paper(
        title="Zero-shot Adversarial Quantization",
        venue="CVPR 2021",
        authors="Liu et al.",
        confirmed="losses and their weights, five turns of the student to one of the generator, "
        "batch norms in training mode, schedule, from the released code, which is for CIFAR",
        ours="the generator's turn is on the last of the five batches and not on a sixth; it "
        "learns alone first, while ranges follow its images; maps of any network, by size, and "
        "averaged to 16 x 16 positions in the quick presets; Nesterov momentum; generators and "
        "ranges of the other methods; last iteration reported, not the best",
    ),
    images=Generator(
        [-1.0 * OutputDistance(), -1.0 * FeatureRelations(), -0.1 * Activity()],
        targets=Nothing(),
        latent=256,
    ),
    recovery=(
        ReestimateNorms(batches=0),
        Train(
            [OutputDistance(), FeatureRelations()], turns=_TURNS, norms="batch", weight_decay=5e-4
        ),
    ),
    presets={
        "quick": in_turns(QUICK, _TURNS),
        "quick-imagenet": in_turns(QUICK_IMAGENET, _TURNS),
        "paper": published(
            0.1,
            batch=256,
            warm_up=1,
            milestones=(101, 201),
            epoch=60,
            epochs=301,
            images={"terms": [-1.0 * OutputDistance(), -1.0 * _RELATIONS, -0.1 * Activity()]},
            student_terms=[OutputDistance(), _RELATIONS],
        ),
    },
)
