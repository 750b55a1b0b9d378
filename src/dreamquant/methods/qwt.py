"""QwT: what rounding did to each channel undone by a line fitted in closed form; no training."""

from __future__ import annotations

from dreamquant.methods.dreamed import DREAMED
from dreamquant.methods.method import Method, Paper, Preset
from dreamquant.recovery.affine import RescaleChannels
from dreamquant.recovery.calibrate import Calibrate
from dreamquant.recovery.nearest import RoundToNearest

_FEW = {"count": 64, "batch": 16}

qwt = Method(
    name="qwt",
    summary="rounding to nearest, then each channel's slope and offset by least squares",
    paper=Paper(
        title="Quantization without Tears; QwT-v2: Practical, Effective and Efficient "
        "Post-Training Quantization",
        venue="CVPR 2025; arXiv 2025",
        authors="Fu et al.; Tang et al.",
        confirmed="a closed form on few images in the order of the layers, each on the corrected "
        "prefix, ranges set once before; 512 images and 8-bit ends (preset paper); from the "
        "released code of QwT and, of QwT-v2's line a channel, from summaries",
        ours="a line for each layer's output before its batch norm, where the paper has one for "
        "each block's output; targets are the teacher's outputs on its own prefix; a ridge toward "
        "a slope of 1; scales and ranges of least error, where the paper takes percentiles; images "
        "are dreamed, where it has real ones (--images takes a folder)",
    ),
    images=DREAMED,
    recovery=(RoundToNearest(), Calibrate(), RescaleChannels()),
    scheme={"placement": "layer-input"},
    presets={
        "quick": Preset(),
        "quick-imagenet": Preset(
            images={"size": 64, "batch": 32, "steps": 30, "shift": 8},
            recovery={"Calibrate": _FEW, "RescaleChannels": _FEW},
        ),
        "paper": Preset(
            images={"size": 512, "steps": 500},
            recovery={"RescaleChannels": {"count": 512}},
            scheme={"first_last_bits": 8},
        ),
    },
)
