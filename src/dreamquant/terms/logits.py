"""The student's logits equal the teacher's: KMDFQ (IEEE TCSVT 2023)."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from dreamquant.networks.taps import Output
from dreamquant.terms.contract import Step, Term


@dataclass(frozen=True)
class LogitMatching(Term):
    """``E[mean_c (z_q - z_p)²]``."""

    formula = "E[mean_c (z_q - z_p)²]"
    student_taps = (Output(),)
    any_output = True

    def __call__(self, step: Step) -> Tensor:
        """The squared gap, a scalar >= 0."""
        return F.mse_loss(step.student.output, step.teacher.output)
