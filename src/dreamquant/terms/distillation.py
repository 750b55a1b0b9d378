"""Losses of the student: it learns the teacher's outputs on the synthetic images."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from dreamquant.networks.taps import Output
from dreamquant.terms.adaptability import entropy
from dreamquant.terms.contract import Step, Term
from dreamquant.terms.label_distillation import LabelDistillation


@dataclass(frozen=True)
class StudentCrossEntropy(Term):
    """``CE(z_q(x), y)``, mean over the batch. GDFQ (ECCV 2020), eq. 5."""

    formula = "CE(z_q(x), y)"
    student_taps = (Output(),)

    def __call__(self, step: Step) -> Tensor:
        """The cross-entropy in nats, a scalar >= 0."""
        return F.cross_entropy(step.student.output, step.targets)


@dataclass(frozen=True)
class KnowledgeDistillation(Term):
    """``T² KL(softmax(z_p/T) || softmax(z_q/T))``, mean over the batch and over classes.

    The GDFQ family takes the mean over classes too, which divides by B·C. Others divide by B only,
    which gives the term C times the weight.
    """

    temperature: float
    formula = "T² KL(softmax(z_p/T) || softmax(z_q/T))"
    student_taps = (Output(),)

    def for_labels(self) -> Term:
        """A sigmoid for each label in place of the softmax."""
        return LabelDistillation(self.temperature)

    def __call__(self, step: Step) -> Tensor:
        """The divergence in nats per class, a scalar >= 0."""
        t = self.temperature
        log_p = F.log_softmax(step.teacher.output / t, dim=1)
        log_q = F.log_softmax(step.student.output / t, dim=1)
        # Not kl_div's own "mean": PyTorch warns that a later version will divide by B only.
        return t**2 * F.kl_div(log_q, log_p, reduction="none", log_target=True).mean()


@dataclass(frozen=True)
class DifferenceEntropy(Term):
    """``-T² E[H(softmax((z_p - z_q)/T))]``: logits are equal up to a shift. AdaDFQ's student loss.

    The minimum is ``-T² log C``, where the difference is the same for all classes. For small
    differences the loss is this constant plus half the variance of the difference over classes, for
    every T.
    """

    temperature: float
    formula = "-T² E[H(softmax((z_p - z_q)/T))]"
    student_taps = (Output(),)

    def __call__(self, step: Step) -> Tensor:
        """The negative entropy in nats, a scalar in [-T² log C, 0]."""
        t = self.temperature
        return -(t**2) * entropy((step.teacher.output - step.student.output) / t).mean()
