"""What methods of block reconstruction share: quick images, quick numbers, the published ones."""

from __future__ import annotations

from dreamquant.methods.method import Preset
from dreamquant.synthesis.dead_leaves import DeadLeaves
from dreamquant.synthesis.pixels import Pixels
from dreamquant.terms.classes import TeacherCrossEntropy
from dreamquant.terms.statistics import BatchNormStatistics

# The published ones reconstruct on real images; these are the nearest to them that are quick.
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

# A twentieth of the published steps and less takes rates ten times theirs.
_QUICK = {"count": 256, "batch": 32, "steps": 300, "lr_bits": 1e-2}
_QUICK_IMAGENET = {"count": 64, "batch": 8, "steps": 60, "lr_bits": 2e-2}
_FEW = {"size": 64, "batch": 32, "steps": 30, "shift": 8}

QUICK = Preset(recovery={"Reconstruct": _QUICK})
QUICK_IMAGENET = Preset(
    images=_FEW,
    recovery={"Calibrate": {"count": 64, "batch": 16}, "Reconstruct": _QUICK_IMAGENET},
)
# 1024 images, 20,000 steps a block, the first and the last layer at 8 bits.
PAPER = Preset(
    images={"size": 1024, "steps": 500},
    recovery={"Calibrate": {"count": 1024}, "Reconstruct": {"count": 1024}},
    scheme={"first_last_bits": 8},
)
