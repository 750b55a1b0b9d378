"""GranQ: AdaDFQ with activation ranges of each image and channel, found while the network runs."""

from __future__ import annotations

from dataclasses import replace

from dreamquant.methods.adadfq import adadfq
from dreamquant.methods.method import Paper

granq = replace(
    adadfq,
    name="granq",
    summary="AdaDFQ; dynamic activation ranges of each image and channel, which no file can hold",
    paper=Paper(
        title="GranQ: Granular Zero-Shot Quantization with Channel-Wise Activation Scaling",
        venue="arXiv 2503.18339; ACM SAC 2026",
        authors="Hong et al.",
        confirmed="ranges of each image and channel, found anew when the network runs, on AdaDFQ's "
        "losses, from the abstract and the released code",
        ours="weights have one scale an output channel, as in all methods: the released code gives "
        "each kernel its own, of nine values, or of one, which rounding leaves as it is; such "
        "weights are not of the bits named. Schedules are AdaDFQ's",
    ),
    scheme={"granularity": "image-channel"},
)
