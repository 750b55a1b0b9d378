"""Presets of the methods of block reconstruction: quick numbers, and the published ones."""

from __future__ import annotations

from dreamquant.methods.dreamed import FEW
from dreamquant.methods.method import Preset

# With a twentieth of the published steps or fewer, rates are ten times the published ones.
_QUICK = {"count": 256, "batch": 32, "steps": 300, "lr_bits": 1e-2}
_QUICK_IMAGENET = {"count": 64, "batch": 8, "steps": 60, "lr_bits": 2e-2}

QUICK = Preset(recovery={"Reconstruct": _QUICK})
QUICK_IMAGENET = Preset(
    images=FEW,
    recovery={"Calibrate": {"count": 64, "batch": 16}, "Reconstruct": _QUICK_IMAGENET},
)
# 1024 images, 20,000 steps a block, the first and the last layer at 8 bits.
PAPER = Preset(
    images={"size": 1024, "steps": 500},
    recovery={"Calibrate": {"count": 1024}, "Reconstruct": {"count": 1024}},
    scheme={"first_last_bits": 8},
)
