"""SynQ as an add-on: smooth images, maps of activation, labels for easy images alone."""

from __future__ import annotations

from dreamquant.methods.method import AddOn, Paper
from dreamquant.recovery.low_pass import LowPass
from dreamquant.terms.activation_maps import CamAlignment
from dreamquant.terms.gated import GatedCrossEntropy

synq = AddOn(
    name="synq",
    summary="smooth images, class activation maps aligned, labels for easy images alone",
    paper=Paper(
        title="SynQ: Accurate Zero-shot Quantization by Synthesis-aware Fine-tuning",
        venue="ICLR 2025",
        authors="Kim et al.",
        confirmed="the Gaussian low-pass filter, the squared gap of Grad-CAM maps at weight 50, "
        "cross-entropy at weight 0.5 of images whose difficulty is at most 0.5; from the paper's "
        "text and the released code's defaults for ImageNet",
        ours="the filter's cutoff counts in fractions of the image's side, 0.36 as 80 is of 224 "
        "pixels; a channel's weight in a map counts as a constant; one weight for all networks, "
        "where the paper searches for each; on its own it stands on HAST's images, without TexQ's "
        "calibration centres",
    ),
    student_terms=[0.5 * GatedCrossEntropy(threshold=0.5), 50.0 * CamAlignment()],
    through=(LowPass(),),
)
