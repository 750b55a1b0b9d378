"""Quick presets that the methods for transformers share: minutes on two cores."""

from __future__ import annotations

from dreamquant.methods.method import Preset
from dreamquant.training.decay import Cosine

QUICK_RANGES = Preset(
    images={"size": 128, "batch": 64, "steps": 100, "lr": 0.1, "decay": Cosine(), "shift": 1},
    recovery={"Calibrate": {"count": 128, "batch": 64}},
)
QUICK_RANGES_LARGE = Preset(
    images={"size": 16, "batch": 16, "steps": 60, "shift": 8},
    recovery={"Calibrate": {"count": 16, "batch": 16}},
)

_LEARNING = {
    "iterations": 400,
    "batch": 32,
    "lr": 5e-4,
    "optimizer": "adam",
    "decay": Cosine(rise=40),
    "clip": 5.0,
}
_SCHEME = {"ranges": "learned", "gradient": "clipped"}

QUICK = Preset(
    images={"size": 256, "batch": 64, "steps": 100, "lr": 0.1, "shift": 1},
    recovery={"Train": _LEARNING},
    scheme=_SCHEME,
)
QUICK_LARGE = Preset(
    images={"size": 32, "batch": 16, "steps": 60, "shift": 8},
    recovery={
        "Calibrate": {"count": 32, "batch": 16},
        "Train": {**_LEARNING, "iterations": 100, "batch": 8},
    },
    scheme=_SCHEME,
)
