"""Auto: a student within seconds, then better ones for as long as there is time; the best stays."""

from __future__ import annotations

from dreamquant.methods.method import Method, Paper, Preset
from dreamquant.methods.stages import LARGE, SMALL
from dreamquant.quantization.scheme import SCHEMES
from dreamquant.recovery.anytime import Anytime

auto = Method(
    name="auto",
    summary="stages from seconds to as long as there is time; keeps the best student; the default",
    paper=Paper(
        title="none: the project's own pipeline",
        venue="here",
        authors="DreamQuant",
        confirmed="nothing: it is not published. Its parts are: SQuant (Guo et al., ICLR 2022), "
        "batch-norm statistics (Yin et al., CVPR 2020), adaptive batch norm (Li et al., 2016), a "
        "quantized prefix against the teacher's outputs (Li et al., ICLR 2021), coordinate descent "
        "(Zhang et al., 2024), trained step sizes (Esser et al., ICLR 2020)",
        ours="the composition, the procedural start, adaptive batch norm for calibration, the "
        "choice by held-out probe images, and all numbers",
    ),
    images=None,
    recovery=(Anytime(SMALL),),
    scheme={**SCHEMES["integer"], "ranges": "learned", "gradient": "clipped"},
    presets={
        "quick": Preset(),
        "quick-imagenet": Preset(recovery={"Anytime": {"stages": LARGE, "judged_on": 96}}),
    },
)
