"""Stages of the project's own pipeline: a student within seconds, then better ones."""

from __future__ import annotations

from dataclasses import replace

from dreamquant.methods.dreamed import DREAMED, FEW
from dreamquant.recovery.anytime import Stage
from dreamquant.recovery.calibrate import Calibrate
from dreamquant.recovery.closed_form import RoundByLeastSquares
from dreamquant.recovery.input_range import CoverScales
from dreamquant.recovery.train import Train
from dreamquant.recovery.without_images import RoundBySquant
from dreamquant.synthesis.drawn import Procedural
from dreamquant.synthesis.pixels import Pixels
from dreamquant.terms.logits import LogitMatching
from dreamquant.training.decay import Cosine

_ROOM = 2.0  # of activation ranges of 8 bits; those of 4 bits have none


def closed_forms(
    few: int, many: int, batch: int, dreamed: Pixels, *, adapt: bool
) -> tuple[Stage, ...]:
    """Stages that need no training of the student, from seconds to minutes.

    Args:
        few: number of images that the first stage sets ranges on.
        many: number of procedural images that the second stage uses.
        batch: number of images in one forward pass.
        dreamed: how images are dreamed for the third stage.
        adapt: whether batch norms take the statistics of dreamed images as well.
    """
    solved = RoundByLeastSquares(count=many, batch=batch, damp=0.2, room=_ROOM, adapt=True)
    ranges = Calibrate(count=few, batch=few, room=_ROOM, adapt=True)
    rounded = (RoundBySquant(), ranges, CoverScales())
    return (
        Stage("rounding", images=Procedural(size=few), recovery=rounded),
        Stage(
            "least squares on procedural images",
            images=Procedural(size=many),
            recovery=(solved,),
            # Drawn features have none of the correlations of sounds, and agreement on other drawn
            # ones does not show it: DS-CNN at W4A4 has 88.0 % before and 82.4 % after.
            pictures=True,
        ),
        Stage(
            "least squares on dreamed images",
            images=dreamed,
            recovery=(replace(solved, adapt=adapt),),
        ),
    )


# Of ResNet-20 at W3A3, 86.1 % before, 88.4 after (1,000 images, seed 0).
TRAIN = Train(
    [LogitMatching()],
    iterations=300,
    batch=64,
    lr=5e-4,
    optimizer="adam",
    decay=Cosine(rise=50),
    clip=5.0,
)
# Without adapting, DS-CNN at W4A4 ends at 62 % in place of 83.
SMALL = (
    *closed_forms(few=64, many=256, batch=64, dreamed=DREAMED, adapt=True),
    Stage("training on the same images", recovery=(TRAIN,), anew=False, fraction=0.9),
)
# Of 224 pixels an image costs fifty times as much, and there are fifty times as many positions in
# it for least squares to read. Training on so few of them does harm: of MobileNetV1 at W4A4, 59.0 %
# before, 54.8 after 200 batches of 16 (400 images, seed 0).
# Images dreamed by relative statistics have those of training by themselves.
LARGE = closed_forms(few=16, many=64, batch=32, dreamed=replace(DREAMED, **FEW), adapt=False)
