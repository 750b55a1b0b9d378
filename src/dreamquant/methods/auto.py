"""Auto: a student within seconds, then better ones for as long as there is time; the best stays."""

from __future__ import annotations

from dreamquant.methods.method import Method, Paper, Preset
from dreamquant.quantization.scheme import SCHEMES
from dreamquant.recovery.anytime import Anytime, Stage
from dreamquant.recovery.calibrate import Calibrate
from dreamquant.recovery.closed_form import RoundByLeastSquares
from dreamquant.recovery.reconstruct import Reconstruct
from dreamquant.recovery.without_images import RoundBySquant
from dreamquant.synthesis.dead_leaves import DeadLeaves
from dreamquant.synthesis.drawn import Procedural
from dreamquant.synthesis.pixels import Pixels
from dreamquant.terms.classes import TeacherCrossEntropy
from dreamquant.terms.relative_statistics import RelativeStatistics
from dreamquant.terms.statistics import BatchNormStatistics

# Of 32 pixels: 256 images, and a hundred steps on all of them at once.
SMALL = (
    Stage(
        "rounding",
        images=Procedural(size=64),
        recovery=(RoundBySquant(), Calibrate(count=64, batch=64, adapt=True)),
    ),
    Stage(
        "least squares on procedural images",
        images=Procedural(size=256),
        recovery=(RoundByLeastSquares(count=256, batch=64, damp=0.2, adapt=True),),
    ),
    Stage(
        "least squares on dreamed images",
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
        recovery=(RoundByLeastSquares(count=256, batch=64, damp=0.2, adapt=True),),
    ),
    Stage(
        "block reconstruction",
        recovery=(Reconstruct(count=256, batch=32, steps=100),),
        anew=False,
        fraction=0.9,
    ),
)
# Of 224 pixels an image costs fifty times as much, and there are fifty times as many positions in
# it for least squares to read.
LARGE = (
    Stage(
        "rounding",
        images=Procedural(size=16),
        recovery=(RoundBySquant(), Calibrate(count=16, batch=16, adapt=True)),
    ),
    Stage(
        "least squares on procedural images",
        images=Procedural(size=64),
        recovery=(RoundByLeastSquares(count=64, batch=32, damp=0.2, adapt=True),),
    ),
    Stage(
        "least squares on dreamed images",
        images=Pixels(
            [RelativeStatistics(), 0.1 * TeacherCrossEntropy()],
            size=64,
            batch=32,
            steps=24,
            lr=0.02,
            start=DeadLeaves(),
            shift=8,
            flip=True,
            clamp=True,
        ),
        recovery=(RoundByLeastSquares(count=64, batch=32, damp=0.2, adapt=True),),
    ),
    Stage(
        "block reconstruction",
        recovery=(Reconstruct(count=64, batch=16, steps=20),),
        anew=False,
        fraction=0.9,
    ),
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
