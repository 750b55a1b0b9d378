"""The quick schedules: minutes on two cores; methods share them, or say why they depart."""

from __future__ import annotations

from dataclasses import replace

from dreamquant.methods.method import Preset
from dreamquant.methods.schedule import Schedule

# Tried on ResNet-20 W3A3, one seed, with as many images: Adam on weights whose ranges follow them
# ends 2 points lower, trained step sizes that start from whole ranges 1, SGD 0.5; rates from 3e-4
# to 6e-4 end where this does, 1e-3 below. docs/results/README.md has the numbers.
QUICK = Preset(
    Schedule(
        iterations=1200,
        batch=16,
        range_warmup=100,
        student_warmup=100,
        student_lr=5e-4,
        student_optimizer="adam",
        decay="cosine",
        lr_warmup=100,
        clip=5.0,
    ),
    ranges="learned",
    gradient="clipped",
)

# A student of another architecture starts from nothing: more and larger steps. Tried on the demo's
# digits: batches of 16 and 64 at as many images, rates of 0.03 and 0.3; none did better.
DISTILL = replace(
    QUICK.schedule,
    iterations=4000,
    batch=32,
    range_warmup=0,
    student_warmup=100,
    student_lr=1e-1,
    student_optimizer="sgd",
    lr_warmup=50,
    weight_decay=5e-4,
)

# Neither Adam nor trained step sizes: with both, MobileNetV1 at W6A6 ended at 30 % after 40 batches
# of 8, where this ended at 73 before batch norms were matched, and ends at 79 since.
QUICK_IMAGENET = Preset(
    Schedule(
        iterations=2000,
        batch=16,
        range_warmup=200,
        student_warmup=200,
        student_lr=1e-3,
        decay="cosine",
        lr_warmup=100,
        clip=5.0,
    ),
    gradient="clipped",
    norms="matched",
)
