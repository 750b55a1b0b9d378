"""The quick presets: minutes on two cores. Methods use them, or state why they differ."""

from __future__ import annotations

from dataclasses import replace

from dreamquant.methods.method import Preset
from dreamquant.training.decay import Cosine


# Tried on ResNet-20 W3A3, one seed, with as many images: Adam on weights whose ranges follow them
# ends 2 points lower, trained step sizes that start from whole ranges 1, SGD 0.5; rates from 3e-4
# to 6e-4 end where this does, 1e-3 below. docs/results/README.md has the numbers.
def quick(
    *,
    batch: int = 16,
    alone: int = 100,
    iterations: int = 1100,
    lr: float = 5e-4,
    rise: int = 100,
) -> Preset:
    """The quick preset, with the numbers in which a method differs.

    Args:
        batch: images of an iteration.
        alone: iterations in which only the generator learns; ranges are observed on its images.
        iterations: iterations in which the student learns.
        lr: the student's learning rate.
        rise: iterations in which this rate rises.
    """
    return Preset(
        images={"batch": batch, "alone": alone, "observe": alone, "decay": Cosine()},
        recovery={
            "Train": {
                "iterations": iterations,
                "batch": batch,
                "lr": lr,
                "optimizer": "adam",
                "decay": Cosine(rise=rise),
                "clip": 5.0,
            }
        },
        scheme={"ranges": "learned", "gradient": "clipped"},
    )


QUICK = quick()

# A student of another architecture starts from nothing: more and larger steps. Tried on the demo's
# digits: batches of 16 and 64 at as many images, rates of 0.03 and 0.3; none did better.
DISTILL = Preset(
    images={"batch": 32, "alone": 100, "observe": 0, "decay": Cosine()},
    recovery={
        "Train": {
            "iterations": 3900,
            "batch": 32,
            "lr": 1e-1,
            "optimizer": "sgd",
            "decay": Cosine(rise=50),
            "weight_decay": 5e-4,
            "clip": 5.0,
        },
        "ReestimateNorms": {"batches": 0},
    },
)

# Neither Adam nor trained step sizes: with both, MobileNetV1 at W6A6 ended at 30 % after 40 batches
# of 8, where this ended at 73 before batch norms were re-estimated, and ends at 79 since.
QUICK_IMAGENET = Preset(
    images={"batch": 16, "alone": 200, "observe": 200, "decay": Cosine()},
    recovery={
        "Train": {
            "iterations": 1800,
            "batch": 16,
            "lr": 1e-3,
            "decay": Cosine(rise=100),
            "clip": 5.0,
        },
        "ReestimateNorms": {"batches": 16},
    },
    scheme={"gradient": "clipped"},
)


def in_turns(preset: Preset, turns: int) -> Preset:
    """The preset for a student that learns from ``turns`` batches an iteration: as many images."""
    train = preset.recovery["Train"]
    fewer = {
        "iterations": train["iterations"] // turns,
        "decay": train["decay"].stretched(1 / turns),
    }
    return replace(preset, recovery={**preset.recovery, "Train": {**train, **fewer}})
