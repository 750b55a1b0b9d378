"""Distillation with the divergence of a whole image, not divided by the number of classes."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from dreamquant.networks.taps import Output
from dreamquant.terms.contract import Step, Term
from dreamquant.terms.label_distillation import LabelDistillation


@dataclass(frozen=True)
class ImageDistillation(Term):
    """``T² E[KL(softmax(z_p/T) || softmax(z_q/T))]``, mean over the batch only.

    As in IntraQ, HAST and SynQ; the GDFQ family also divides by the number of classes.
    """

    temperature: float = 20.0
    formula = "T² E[KL(softmax(z_p/T) || softmax(z_q/T))]"
    student_taps = (Output(),)

    def for_labels(self) -> Term:
        """A sigmoid for each label in place of the softmax."""
        return LabelDistillation(self.temperature, mean=False)

    def __call__(self, step: Step) -> Tensor:
        """The divergence in nats, a scalar >= 0."""
        t = self.temperature
        log_p = F.log_softmax(step.teacher.output / t, dim=1)
        log_q = F.log_softmax(step.student.output / t, dim=1)
        return t**2 * F.kl_div(log_q, log_p, reduction="batchmean", log_target=True)
