"""Images dreamed in seconds, from dead leaves: what the project's own methods start from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dreamquant.synthesis.pixels import Pixels
from dreamquant.synthesis.suited import Suited
from dreamquant.terms.classes import TeacherCrossEntropy
from dreamquant.terms.relative_statistics import RelativeStatistics
from dreamquant.terms.statistics import BatchNormStatistics

# Of 32 pixels: 256 at once, a hundred steps.
DREAMED = Pixels(
    [BatchNormStatistics(), 0.5 * TeacherCrossEntropy()],
    size=256,
    batch=256,
    steps=100,
    lr=0.1,
    start=Suited(),
    shift=2,
    flip=True,
    clamp=True,
)
# Of 224 pixels an image costs fifty times as much, and the gap of a network's statistics is made up
# by few channels where it is not relative. Of MobileNetV1, 24 steps close three quarters of the
# relative gap at this rate (0.32 to 0.08), and fewer at 0.05 (0.12).
FEW: Mapping[str, Any] = {
    "terms": [RelativeStatistics(), 0.001 * TeacherCrossEntropy()],
    "size": 64,
    "batch": 32,
    "steps": 24,
    "lr": 0.02,
    "shift": 8,
}
