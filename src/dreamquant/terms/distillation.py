"""What the student learns from the teacher: its logits on the synthetic images."""

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

    The mean over classes too (dividing by B·C) is the GDFQ lineage's; others divide by B alone,
    which weighs the term C times more.
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
        # Not kl_div's own "mean": PyTorch warns that it will come to divide by B alone.
        return t**2 * F.kl_div(log_q, log_p, reduction="none", log_target=True).mean()


@dataclass(frozen=True)
class DifferenceEntropy(Term):
    """``-T² E[H(softmax((z_p - z_q)/T))]``: logits matched up to a shift. AdaDFQ's student loss.

    Least, at ``-T² log C``, where the difference is the same for all classes. For small
    differences it is that constant plus half their variance over classes, whatever T is.
    """

    temperature: float
    formula = "-T² E[H(softmax((z_p - z_q)/T))]"
    student_taps = (Output(),)

    def __call__(self, step: Step) -> Tensor:
        """The negative entropy in nats, a scalar in [-T² log C, 0]."""
        t = self.temperature
        return -(t**2) * entropy((step.teacher.output - step.student.output) / t).mean()
