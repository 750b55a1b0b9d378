"""Nagel's data-free quantization: ranges equalized, biases corrected, all from batch norms."""

from __future__ import annotations

from dreamquant.methods.method import Method, Paper, Preset
from dreamquant.quantization.clips import ClipPerChannel
from dreamquant.quantization.prepare import FoldBatchNorms, GiveBiases
from dreamquant.recovery.biases import CorrectBias
from dreamquant.recovery.equalize import AbsorbBias, Equalize
from dreamquant.recovery.norm_ranges import RangesFromBatchNorm

nagel = Method(
    name="nagel",
    summary="cross-layer equalization, bias absorption and correction; for 8 bits, in seconds",
    paper=Paper(
        title="Data-Free Quantization Through Weight Equalization and Bias Correction",
        venue="ICCV 2019",
        authors="Nagel et al.",
        confirmed="equalization, absorption beyond three deviations, analytic bias correction, "
        "ranges of six deviations; from the formulas and a re-implementation",
        ours="weights per channel, where the paper has one range a tensor; ReLU6 is kept and its "
        "limit scaled per channel, where the paper replaces it; below 8 bits ranges of the least "
        "squared error of the same normals",
    ),
    images=None,
    recovery=(RangesFromBatchNorm(deviations=6), CorrectBias()),
    prepare=(FoldBatchNorms(), GiveBiases(), ClipPerChannel(), Equalize(), AbsorbBias()),
    scheme={"placement": "layer-input"},
    presets={"quick": Preset(), "quick-imagenet": Preset(), "paper": Preset()},
)
