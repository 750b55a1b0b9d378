"""DSG: statistics with slack, and for each image a layer of its own, so that images differ."""

from __future__ import annotations

from dreamquant.methods.method import Method, Paper, Preset
from dreamquant.recovery.calibrate import Calibrate
from dreamquant.synthesis.pixels import Pixels
from dreamquant.terms.classes import TeacherCrossEntropy
from dreamquant.terms.slack import SlackStatistics

dsg = Method(
    name="dsg",
    summary="statistics with slack, a layer of emphasis for each image; ranges only",
    paper=Paper(
        title="Diversifying Sample Generation for Accurate Data-Free Quantization",
        venue="CVPR 2021",
        authors="Zhang et al.",
        confirmed="slack from Gaussian noise, twice the weight at layer i mod L, 2 x CE, "
        "500 steps of Adam at rates up to 0.9, shifts of up to 30 pixels at 224, from the released "
        "code of the variant without training",
        ours="slack is the median gap of each layer, since the released figures lack; statistics "
        "of each image at batch norms' own inputs; no total variation and no decorrelation; ranges "
        "of least squared error; the rate falls by a cosine and not on plateaus",
    ),
    images=Pixels(
        [SlackStatistics(quantile=0.5, emphasis=2.0), 2.0 * TeacherCrossEntropy()],
        size=64,
        batch=64,
        steps=500,
        lr=0.9,
        shift=2,
    ),
    recovery=(Calibrate(count=64, batch=64),),
    presets={
        "quick": Preset(images={"steps": 100}),
        "quick-imagenet": Preset(images={"size": 16, "batch": 16, "steps": 40, "shift": 30}),
        "paper": Preset(),
        "paper-imagenet": Preset(images={"shift": 30}),
    },
)
