"""Auto: a student within seconds, then better ones for as long as there is time; the best stays."""

from __future__ import annotations

from dataclasses import replace

from dreamquant.methods.dreamed import DREAMED
from dreamquant.methods.method import Method, Paper, Preset
from dreamquant.quantization.scheme import SCHEMES
from dreamquant.recovery.anytime import Anytime, Stage
from dreamquant.recovery.calibrate import Calibrate
from dreamquant.recovery.closed_form import RoundByLeastSquares
from dreamquant.recovery.reconstruct import Reconstruct
from dreamquant.recovery.without_images import RoundBySquant
from dreamquant.synthesis.drawn import Procedural
from dreamquant.synthesis.pixels import Pixels
from dreamquant.terms.classes import TeacherCrossEntropy
from dreamquant.terms.relative_statistics import RelativeStatistics


def stages(few: int, many: int, batch: int, dreamed: Pixels, steps: int) -> tuple[Stage, ...]:
    """The stages, from seconds to minutes.

    Args:
        few: images that ranges are set on, of the first stage.
        many: images of the others.
        batch: of them at once.
        dreamed: how they are dreamed.
        steps: of each block that is reconstructed.
    """
    solved = RoundByLeastSquares(count=many, batch=batch, damp=0.2, adapt=True)
    rounded = (RoundBySquant(), Calibrate(count=few, batch=few, adapt=True))
    blocks = Reconstruct(count=many, batch=batch // 2, steps=steps)
    return (
        Stage("rounding", images=Procedural(size=few), recovery=rounded),
        Stage(
            "least squares on procedural images",
            images=Procedural(size=many),
            recovery=(solved,),
        ),
        Stage("least squares on dreamed images", images=dreamed, recovery=(solved,)),
        Stage("block reconstruction", recovery=(blocks,), anew=False, fraction=0.9),
    )


SMALL = stages(few=64, many=256, batch=64, dreamed=DREAMED, steps=100)
# Of 224 pixels an image costs fifty times as much, and there are fifty times as many positions in
# it for least squares to read.
LARGE = stages(
    few=16,
    many=64,
    batch=32,
    dreamed=replace(
        DREAMED,
        terms=[RelativeStatistics(), 0.1 * TeacherCrossEntropy()],
        size=64,
        batch=32,
        steps=24,
        lr=0.02,
        shift=8,
    ),
    steps=20,
)

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
        "(Zhang et al., 2024), learned rounding (Nagel et al., ICML 2020)",
        ours="the composition, the procedural start, adaptive batch norm for calibration, the "
        "choice by held-out probe images, and all numbers",
    ),
    images=None,
    recovery=(Anytime(SMALL),),
    scheme=SCHEMES["integer"],
    presets={
        "quick": Preset(),
        "quick-imagenet": Preset(recovery={"Anytime": {"stages": LARGE, "judged_on": 96}}),
    },
)
