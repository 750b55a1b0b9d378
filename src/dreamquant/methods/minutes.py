"""Minutes: images dreamed from dead leaves, weights solved layer by layer; no training."""

from __future__ import annotations

from dreamquant.methods.method import Method, Paper, Preset
from dreamquant.recovery.closed_form import RoundByLeastSquares
from dreamquant.synthesis.dead_leaves import DeadLeaves
from dreamquant.synthesis.pixels import Pixels
from dreamquant.terms.classes import TeacherCrossEntropy
from dreamquant.terms.statistics import BatchNormStatistics

minutes = Method(
    name="minutes",
    summary="a few dreamed images and one least-squares problem a layer; minutes on two cores",
    paper=Paper(
        title="none: the project's own pipeline",
        venue="here",
        authors="DreamQuant",
        confirmed="nothing: it is not published. Its parts are: batch-norm statistics (Yin et al., "
        "CVPR 2020), a quantized prefix against the teacher's outputs (Li et al., ICLR 2021), "
        "coordinate descent (Zhang et al., 2024)",
        ours="the composition, the procedural start and all numbers",
    ),
    images=Pixels(
        [BatchNormStatistics(), 0.5 * TeacherCrossEntropy()],
        size=256,
        batch=256,
        steps=100,
        lr=0.1,
        start=DeadLeaves(),
        shift=2,
        flip=True,
        clamp=True,
    ),
    recovery=(RoundByLeastSquares(count=256, batch=64, damp=0.2),),
    scheme={"placement": "layer-input"},
    presets={
        "quick": Preset(),
        "quick-imagenet": Preset(
            images={"size": 64, "batch": 32, "steps": 30, "shift": 8},
            recovery={"RoundByLeastSquares": {"count": 64, "batch": 16, "damp": 0.2}},
        ),
    },
)
