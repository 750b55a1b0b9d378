"""Distillation for outputs that are independent labels: a sigmoid each, in place of a softmax."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from dreamquant.networks.taps import Output
from dreamquant.terms.contract import Step, Term


@dataclass(frozen=True)
class LabelDistillation(Term):
    """``T² Σ_c KL(Bernoulli(σ(z_p/T)) || Bernoulli(σ(z_q/T)))``, mean over the batch.

    Ours: the form that distillation by a softmax takes where each output decides about a label of
    its own. Methods get it by themselves for the task ``multi-label``.

    Attributes:
        temperature: T.
        mean: whether the sum over labels is divided by their number.
    """

    temperature: float = 20.0
    mean: bool = True
    formula = "T² Σ_c KL(Bernoulli(σ(z_p/T)) || Bernoulli(σ(z_q/T)))"
    student_taps = (Output(),)
    # It is defined for any real outputs, and least where student and teacher are equal.
    any_output = True

    def __call__(self, step: Step) -> Tensor:
        """The divergence in nats, a scalar >= 0."""
        t = self.temperature
        p, q = step.teacher.output / t, step.student.output / t
        present, absent = p.sigmoid(), (-p).sigmoid()
        gaps = present * (F.logsigmoid(p) - F.logsigmoid(q))
        gaps = gaps + absent * (F.logsigmoid(-p) - F.logsigmoid(-q))
        per_image = gaps.flatten(1)
        return t**2 * (per_image.mean(1) if self.mean else per_image.sum(1)).mean()
