"""AGM: the generator is kept moving by a Gaussian margin, the student learns from mixed images."""

from __future__ import annotations

from dreamquant.methods.method import AddOn, Paper
from dreamquant.recovery.views import Mixup
from dreamquant.terms.margin import GaussianMargin

agm = AddOn(
    name="agm",
    summary="adversarial Gaussian margin on the teacher-student gap; mixed images",
    paper=Paper(
        title="Learning to Generate Diverse Data From a Temporal Perspective for Data-Free "
        "Quantization",
        venue="IEEE TCSVT 2024",
        authors="Luo et al.",
        confirmed="from the abstract: an adversarial Gaussian-margin loss on the discrepancy that "
        "supervises more where it is small; linear interpolation of images; add-on to others",
        ours="the formula is not public: kind (of three, the one with the highest mean over three "
        "seeds, within their spread), discrepancy, sigma, weight, mixup's alpha",
    ),
    generator_terms=[GaussianMargin(kind="random-margin", sigma=1.0)],
    views=(Mixup(alpha=1.0),),
)
