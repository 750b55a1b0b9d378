"""QDrop: block reconstruction in which activations are left unquantized at random."""

from __future__ import annotations

from dreamquant.methods.blockwise import PAPER, QUICK, QUICK_IMAGENET
from dreamquant.methods.dreamed import DREAMED
from dreamquant.methods.method import Method, Paper
from dreamquant.recovery.calibrate import Calibrate
from dreamquant.recovery.nearest import RoundToNearest
from dreamquant.recovery.reconstruct import Reconstruct

qdrop = Method(
    name="qdrop",
    summary="block reconstruction, half of the activations left unquantized at random",
    paper=Paper(
        title="QDrop: Randomly Dropping Quantization for Extremely Low-bit Post-Training "
        "Quantization",
        venue="ICLR 2022",
        authors="Wei et al.",
        confirmed="dropping with probability 0.5 in blocks and at their inputs, soft bits at a "
        "rate of 1e-3 and activation steps at 4e-5 along a cosine, both at once, a penalty of "
        "0.01, 20,000 steps of 32 of 1024 images, the first and the last layer at 8 bits (preset "
        "paper), from the released code",
        ours="images are dreamed, where it has real ones (--images takes a folder); step sizes "
        "learn by their logarithm; batch norms are not folded; the last layer's weights and input "
        "have 8 bits, the first layer's input too where it is quantized; quick presets quantize "
        "all layers alike",
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
            lr_range=4e-5,
            lr_bias=0.0,
            drop=0.5,
            decide=0.01,
        ),
    ),
    presets={"quick": QUICK, "quick-imagenet": QUICK_IMAGENET, "paper": PAPER},
)
