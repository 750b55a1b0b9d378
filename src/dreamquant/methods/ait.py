"""AIT: the student learns from the teacher's answers alone, and its codes are made to move."""

from __future__ import annotations

from dreamquant.methods.method import AddOn, Paper
from dreamquant.recovery.inundation import Inundation
from dreamquant.terms.distillation import KnowledgeDistillation

ait = AddOn(
    name="ait",
    summary="divergence alone, without labels; updates enlarged until enough codes change",
    paper=Paper(
        title="It's All In the Teacher: Zero-Shot Quantization Brought Closer to the Teacher",
        venue="CVPR 2022",
        authors="Choi et al.",
        confirmed="divergence at temperature 20 without cross-entropy, no weight decay, fractions "
        "of codes (1e-3 for CIFAR, 1e-4 for ImageNet) that fall with the rate, doubling and five "
        "bisections, from the released code; published on top of GDFQ, ARC and Qimera",
        ours="the method's own optimizer and rates, whose update is enlarged as a whole; the upper "
        "end of the last interval is taken, and no factor exceeds 2^16",
    ),
    training={
        "terms": [KnowledgeDistillation(temperature=20)],
        "weight_decay": 0.0,
        "inundation": Inundation(),
    },
)
