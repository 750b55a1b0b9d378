"""BRECQ: weights' rounding learned block by block, each against what the teacher's block gives."""

from __future__ import annotations

from dreamquant.methods.blockwise import PAPER, QUICK, QUICK_IMAGENET
from dreamquant.methods.dreamed import DREAMED
from dreamquant.methods.method import Method, Paper
from dreamquant.recovery.calibrate import Calibrate
from dreamquant.recovery.nearest import RoundToNearest
from dreamquant.recovery.reconstruct import Reconstruct

brecq = Method(
    name="brecq",
    summary="rounding learned block by block against the teacher's blocks",
    paper=Paper(
        title="BRECQ: Pushing the Limit of Post-Training Quantization by Block Reconstruction",
        venue="ICLR 2021",
        authors="Li et al.",
        confirmed="blocks as units, a quantized prefix against the teacher's outputs, soft bits "
        "at a rate of 1e-3, their penalty of 0.01 after a fifth of the steps, 20,000 steps of 32 "
        "of 1024 images, scales of least |error|^2.4, the first and the last layer at 8 bits "
        "(preset paper), from the released code",
        ours="images are dreamed, where it has real ones (--images takes a folder); weights and "
        "activation steps learn together, where it does one after the other; step sizes learn by "
        "their logarithm; batch norms are not folded; the plain squared error, not weighted by "
        "Fisher information; quick presets quantize all layers alike",
    ),
    # The published ones are real; these are the nearest to them that are quick.
    images=DREAMED,
    recovery=(
        RoundToNearest(),
        Calibrate(power=2.4),
        Reconstruct(
            steps=20_000,
            lr_bits=1e-3,
            lr_scale=0.0,
            lr_range=4e-4,
            lr_bias=0.0,
            drop=0.0,
            decide=0.01,
        ),
    ),
    presets={"quick": QUICK, "quick-imagenet": QUICK_IMAGENET, "paper": PAPER},
)
