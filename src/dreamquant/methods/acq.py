"""ACQ: the generator is told where the teacher's attention shall lie, and varies the rest."""

from __future__ import annotations

from dreamquant.methods.gdfq import gdfq
from dreamquant.methods.method import Method, Paper
from dreamquant.synthesis.generator import Generator
from dreamquant.synthesis.targets import AttentionCentres, OneHot
from dreamquant.terms.attention import CentreMatching, ModeConsistency, PairDiversity
from dreamquant.terms.classes import TeacherCrossEntropy
from dreamquant.terms.statistics import BatchNormStatistics

acq = Method(
    name="acq",
    summary="attention-centre condition, pair diversity, one attention in both modes",
    paper=Paper(
        title="Improving Generative Data-Free Quantization via Attention Correction",
        venue="arXiv 2301.07266; Pattern Recognition 2024",
        authors="Li et al.",
        confirmed="the four ideas, from two versions of the abstract",
        ours="every formula and number; GDFQ's student loss, quantizer and schedules",
    ),
    images=Generator(
        [
            TeacherCrossEntropy(),
            0.1 * BatchNormStatistics(),
            # With 1, 0.1 and 0.1 attention spreads no further than without (docs/diagnostics.md).
            30.0 * CentreMatching(),
            3.0 * PairDiversity(cap=1.0),
            3.0 * ModeConsistency(),
        ],
        targets=OneHot(copies=2),
        condition=AttentionCentres(margin=0.2, copies=2),
    ),
    recovery=gdfq.recovery,
    presets=gdfq.presets,
)
