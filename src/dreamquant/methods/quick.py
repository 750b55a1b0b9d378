"""The quick schedules: minutes on two cores; methods share them, or say why they depart."""

from __future__ import annotations

from dataclasses import replace

from dreamquant.methods.method import Preset
from dreamquant.methods.schedule import Schedule

QUICK = Preset(
    Schedule(
        iterations=600,
        batch=32,
        range_warmup=120,
        student_warmup=120,
        student_lr=1e-2,
        decay="cosine",
        lr_warmup=50,
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
    range_warmup=0,
    student_warmup=100,
    student_lr=1e-1,
    weight_decay=5e-4,
)

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
    ranges="learned",
    gradient="clipped",
)
