"""The student's channel attention equals the teacher's: HAST (CVPR 2023)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from dreamquant.networks.module_outputs import NormOutputs
from dreamquant.terms.contract import Step, Term


def channel_attention(features: Tensor) -> Tensor:
    """Mean of squares over space, normalised to length 1 for each image: (B, F, ...) to (B, F)."""
    return F.normalize(features.square().flatten(2).mean(2))


@dataclass(frozen=True)
class ChannelAttention(Term):
    """``Σ_l E[mean_c (a_lc(q) - a_lc(p))²]`` over the outputs of all batch norms."""

    formula = "Σ_l E[mean_c (a_lc(q) - a_lc(p))²], a = channels' mean squares, of length 1"
    teacher_taps = (NormOutputs(),)
    student_taps = (NormOutputs(),)
    any_output = True

    def __call__(self, step: Step) -> Tensor:
        """The squared gap, a scalar >= 0."""
        teacher, student = step.teacher[NormOutputs()], step.student[NormOutputs()]
        gaps = [
            F.mse_loss(channel_attention(q), channel_attention(p))
            for p, q in zip(teacher, student, strict=True)
        ]
        return torch.stack(gaps).sum()
