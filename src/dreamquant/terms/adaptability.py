"""Images neither too easy nor too hard for the student: AdaDFQ (CVPR 2023), AdaSG (AAAI 2023)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from dreamquant import distributed
from dreamquant.networks.taps import Output
from dreamquant.terms.contract import Step, Term


def entropy(logits: Tensor) -> Tensor:
    """Entropy in nats of ``softmax(logits)`` per row: (B, classes) to (B,)."""
    log_p = F.log_softmax(logits, dim=1)
    return -(log_p.exp() * log_p).sum(1)


def normalised_disagreement_entropy(teacher_logits: Tensor, student_logits: Tensor) -> Tensor:
    """H' (B,) of ``softmax(z_p - z_q)``, scaled from the batch's least entropy (0) to log C (1).

    It is 1 where teacher and student agree up to a shift of the logits, so that nothing is left to
    learn, and near 0 where one class dominates their difference. The batch minimum takes part in
    the gradient, as in the released code.
    """
    h = entropy(teacher_logits - student_logits)
    least, most = distributed.least(h.min()), math.log(teacher_logits.shape[1])
    # If all samples agree fully, the divisor is zero; all values are then 0, as that of the sample
    # with the least entropy always is.
    # Near full agreement, float32 rounds h above log C by more than this divisor.
    return ((h - least) / (most - least).clamp(min=1e-6)).clamp(max=1)


@dataclass(frozen=True)
class Band(Term):
    """Keeps H' between two bounds: ``E[max(λ_l - H', 0)] + E[max(H' - λ_u, 0)]``.

    Below ``lower`` the student would underfit, above ``upper`` overfit.
    """

    lower: float
    upper: float
    formula = "E[max(λ_l - H', 0)] + E[max(H' - λ_u, 0)]"
    student_taps = (Output(),)

    def __call__(self, step: Step) -> Tensor:
        """The mean distance to the band, a scalar in [0, 1]."""
        h = normalised_disagreement_entropy(step.teacher.output, step.student.output)
        return F.relu(self.lower - h).mean() + F.relu(h - self.upper).mean()


@dataclass(frozen=True)
class Balance(Term):
    """``α_ds CE(softmax(z_p - z_q), y) + α_as CE(softmax(z_p + z_q), y)``.

    The first term favours images that only the teacher classifies correctly, the second images that
    both classify correctly.
    """

    disagree: float
    agree: float
    formula = "α_ds CE(softmax(z_p - z_q), y) + α_as CE(softmax(z_p + z_q), y)"
    student_taps = (Output(),)

    def __call__(self, step: Step) -> Tensor:
        """The weighted cross-entropies in nats, a scalar >= 0."""
        z_p, z_q = step.teacher.output, step.student.output
        apart = F.cross_entropy(z_p - z_q, step.targets)
        together = F.cross_entropy(z_p + z_q, step.targets)
        return self.disagree * apart + self.agree * together
