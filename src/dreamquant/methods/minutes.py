"""Minutes: images dreamed from dead leaves, weights solved layer by layer; no training."""

from __future__ import annotations

from dreamquant.methods.dreamed import DREAMED, FEW
from dreamquant.methods.method import Method, Paper, Preset
from dreamquant.recovery.closed_form import RoundByLeastSquares

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
    images=DREAMED,
    recovery=(RoundByLeastSquares(count=256, batch=64, damp=0.2),),
    scheme={"placement": "layer-input"},
    presets={
        "quick": Preset(),
        "quick-imagenet": Preset(
            images=FEW,
            recovery={"RoundByLeastSquares": {"count": 64, "batch": 16, "damp": 0.2}},
        ),
    },
)
