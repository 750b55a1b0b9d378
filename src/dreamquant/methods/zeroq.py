"""ZeroQ: images dreamed from batch-norm statistics set the activation ranges; no training."""

from __future__ import annotations

from dreamquant.methods.method import Method, Paper, Preset
from dreamquant.recovery.calibrate import Calibrate
from dreamquant.synthesis.pixels import Pixels
from dreamquant.terms.image_statistics import ImageStatistics, InputStatistics

zeroq = Method(
    name="zeroq",
    summary="images from batch-norm statistics alone, for activation ranges; no training",
    paper=Paper(
        title="ZeroQ: A Novel Zero Shot Quantization Framework",
        venue="CVPR 2020",
        authors="Cai et al.",
        confirmed="loss, optimizer, 500 steps on one batch of 64 images, min-max weights per "
        "channel, from the released code",
        ours="statistics at the batch norms' own inputs, where the code pairs convolutions with "
        "batch norms by their order; ranges of least squared error in place of min-max; the rate "
        "falls by a cosine and not on plateaus; uniform bits: its search for mixed ones is left "
        "out",
    ),
    images=Pixels([ImageStatistics(), InputStatistics()], size=64, batch=64, steps=500, lr=0.5),
    recovery=(Calibrate(count=64, batch=64),),
    presets={
        "quick": Preset(images={"steps": 100}),
        "quick-imagenet": Preset(images={"size": 16, "batch": 16, "steps": 40}),
        "paper": Preset(),
    },
)
