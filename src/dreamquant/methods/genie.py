"""GENIE: images from latents and a fresh generator, blocks reconstructed with learned scales."""

from __future__ import annotations

from dreamquant.methods.blockwise import PAPER, QUICK, QUICK_IMAGENET
from dreamquant.methods.method import Method, Paper, Preset
from dreamquant.recovery.calibrate import Calibrate
from dreamquant.recovery.nearest import RoundToNearest
from dreamquant.recovery.reconstruct import Reconstruct
from dreamquant.synthesis.latents import Latents
from dreamquant.terms.image_statistics import InputStatistics
from dreamquant.terms.statistics import BatchNormDeviations

genie = Method(
    name="genie",
    summary="images from latents through swinging convolutions; blocks with learned scales",
    paper=Paper(
        title="Genie: Show Me the Data for Quantization",
        venue="CVPR 2023",
        authors="Jeon et al.",
        confirmed="latents of 256 and a fresh generator for each 128 of 1024 images, 4000 steps, "
        "swing convolutions, losses without labels, rounding and scale learned together, dropping "
        "with probability 0.5, all rates, 20,000 steps of 32 images, the first and the last layer "
        "at 8 bits (preset paper), from the released code",
        ours="the latents' rate falls along a cosine and not on plateaus; biased variances; scales "
        "and step sizes learn by their logarithm; activations on unsigned codes with a zero-point; "
        "a network's second layer has no bits of its own; quick presets quantize all layers alike, "
        "and that of large images has a quarter of the generator's channels",
    ),
    images=Latents([BatchNormDeviations(), InputStatistics()]),
    recovery=(
        RoundToNearest(),
        Calibrate(power=2.4),
        Reconstruct(
            steps=20_000,
            lr_bits=1e-3,
            lr_scale=1e-4,
            lr_range=4e-5,
            lr_bias=0.0,
            drop=0.5,
            decide=1.0,
        ),
    ),
    scheme={"placement": "layer-input"},
    presets={
        "quick": Preset(images={"size": 256, "batch": 128, "steps": 150}, recovery=QUICK.recovery),
        "quick-imagenet": Preset(
            images={"size": 64, "batch": 32, "steps": 60, "widths": (32, 16)},
            recovery=QUICK_IMAGENET.recovery,
        ),
        "paper": Preset(recovery=PAPER.recovery, scheme=PAPER.scheme),
    },
)
