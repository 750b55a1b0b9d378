"""SADAG: GENIE's images, refined such that a first quantized network's loss is flat on them."""

from __future__ import annotations

from dataclasses import replace

from dreamquant.methods.genie import genie
from dreamquant.methods.method import Method, Paper, Preset
from dreamquant.recovery.reconstruct import Reconstruct
from dreamquant.recovery.refine import RefineImages
from dreamquant.terms.image_statistics import InputStatistics
from dreamquant.terms.statistics import BatchNormDeviations

_FIRST = tuple(
    replace(part, steps=4000) if isinstance(part, Reconstruct) else part for part in genie.recovery
)


def _with(preset: Preset, steps: int) -> Preset:
    return replace(preset, recovery={**preset.recovery, "RefineImages": {"steps": steps}})


sadag = Method(
    name="sadag",
    summary="GENIE's images refined for a flat loss and apart from each other",
    paper=Paper(
        title="Sharpness-Aware Data Generation for Zero-shot Quantization",
        venue="ICML 2024",
        authors="Hoang-Anh et al.",
        confirmed="GENIE's images and a first network of 4000 steps a block, 500 steps of "
        "refinement, gradients at the last layer as outer products, matched in the neighbourhood "
        "and kept apart, all weights 1, then GENIE's recovery anew; from the released code",
        ours="images are refined themselves, where the paper refines latents and generators, which "
        "would have to be kept; neighbours lie in random directions at 6 % of the image's length, "
        "for the published direction is a gradient that vanishes at the image itself; the rate; "
        "in quick presets the first network takes as many steps as the second",
    ),
    images=genie.images,
    recovery=(*_FIRST, RefineImages([BatchNormDeviations(), InputStatistics()]), *genie.recovery),
    scheme=genie.scheme,
    presets={
        "quick": _with(genie.presets["quick"], 30),
        "quick-imagenet": _with(genie.presets["quick-imagenet"], 10),
        "paper": genie.presets["paper"],
    },
)
