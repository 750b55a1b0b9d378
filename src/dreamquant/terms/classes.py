"""Images that the teacher assigns to their target class."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from dreamquant.terms.contract import Step, Term


@dataclass(frozen=True)
class TeacherCrossEntropy(Term):
    """``CE(z_p(x), y)``, mean over the batch. GDFQ (ECCV 2020), eq. 2."""

    formula = "CE(z_p(x), y)"

    def __call__(self, step: Step) -> Tensor:
        """The cross-entropy in nats, a scalar >= 0."""
        return F.cross_entropy(step.teacher.output, step.targets)
