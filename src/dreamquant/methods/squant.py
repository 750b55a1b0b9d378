"""SQuant: weights rounded so that errors cancel, ranges from noise; no image and no training."""

from __future__ import annotations

from dreamquant.methods.method import Method, Paper, Preset
from dreamquant.recovery.without_images import RangesFromNoise, RoundBySquant

squant = Method(
    name="squant",
    summary="rounding errors cancel within kernels and channels; needs no image; seconds",
    paper=Paper(
        title="SQuant: On-the-Fly Data-Free Quantization via Diagonal Hessian Approximation",
        venue="ICLR 2022",
        authors="Guo et al.",
        confirmed="both stages of flips, min-max weights per channel, quantizers at layer inputs, "
        "ranges of 12, 14 and 25 deviations on uniform noise, from the released code",
        ours="written from a description, not from the code; the image is quantized as every layer "
        "input is, over the range of its pixels, also where it is padded, because noise has no "
        "negative values; no range goes beyond the value at which an activation cuts off, as "
        "ReLU6 does at 6; the last layer's input has no bits of its own",
    ),
    images=None,
    recovery=(RoundBySquant(), RangesFromNoise()),
    scheme={"placement": "layer-input"},
    presets={
        "quick": Preset(),
        # A few large images have as many values as many small ones.
        "quick-imagenet": Preset(recovery={"RangesFromNoise": {"count": 32, "batch": 16}}),
        "paper": Preset(),
    },
)
