"""Images dreamed in seconds, from dead leaves: what the project's own methods start from."""

from __future__ import annotations

from dreamquant.synthesis.dead_leaves import DeadLeaves
from dreamquant.synthesis.pixels import Pixels
from dreamquant.terms.classes import TeacherCrossEntropy
from dreamquant.terms.statistics import BatchNormStatistics

# Of 32 pixels: 256 at once, a hundred steps.
DREAMED = Pixels(
    [BatchNormStatistics(), 0.5 * TeacherCrossEntropy()],
    size=256,
    batch=256,
    steps=100,
    lr=0.1,
    start=DeadLeaves(),
    shift=2,
    flip=True,
    clamp=True,
)
# Of 224 pixels an image costs fifty times as much.
FEW = {"size": 64, "batch": 32, "steps": 30, "shift": 8}
