"""AKT: the student's features follow the teacher's attention over positions and channels."""

from __future__ import annotations

from dreamquant.methods.method import AddOn, Paper
from dreamquant.terms.feature_distillation import (
    ChannelAttentionDistillation,
    SpatialAttentionDistillation,
)

akt = AddOn(
    name="akt",
    summary="attention over positions and channels distilled, block by block",
    paper=Paper(
        title="AKT, refined feature distillation on top of other methods",
        venue="ACM SAC 2025",
        authors="as in the paper",
        confirmed="divergences at temperature 8 between spatial attention (channels' mean square, "
        "of length 1) and channel attention (softmax of positions' mean square), from the released "
        "code; published on top of AdaDFQ, GDFQ and HAST",
        ours="attention at every batch norm's output, where the code has the ends of blocks; both "
        "weights are 1; the gradient's scale T², as distillation has it",
    ),
    student_terms=[SpatialAttentionDistillation(), ChannelAttentionDistillation()],
)
