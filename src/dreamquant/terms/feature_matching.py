"""The student's feature maps equal the teacher's: PLF (CVPR 2024)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from dreamquant.networks.module_outputs import NormOutputs
from dreamquant.terms.contract import Step, Term


@dataclass(frozen=True)
class FeatureMatching(Term):
    """``Σ_l mean (f_l(q) - f_l(p))²`` over the outputs of all batch norms."""

    formula = "Σ_l mean (f_l(q) - f_l(p))²"
    teacher_taps = (NormOutputs(),)
    student_taps = (NormOutputs(),)
    any_output = True

    def __call__(self, step: Step) -> Tensor:
        """The squared gap, a scalar >= 0."""
        teacher, student = step.teacher[NormOutputs()], step.student[NormOutputs()]
        return torch.stack([F.mse_loss(q, p) for p, q in zip(teacher, student, strict=True)]).sum()
