"""Labels from the teacher, where its entropy is low: PLF (Fan et al., CVPR 2024)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from dreamquant.networks.taps import Output
from dreamquant.terms.adaptability import entropy
from dreamquant.terms.contract import Step, Term


@dataclass(frozen=True)
class PseudoLabels(Term):
    """``E[CE(z_q, argmax p)]`` where the teacher is confident, and ``β E[CE(z_q, t)]`` elsewhere.

    The teacher is confident if its entropy is at most ``threshold · log C``. The label is then its
    class; elsewhere the target is divided between its two most likely classes in proportion to
    their probabilities.

    Attributes:
        threshold: of the entropy, a fraction of log C.
        auxiliary: β.
    """

    threshold: float = 0.35
    auxiliary: float = 0.3
    formula = "E[CE(z_q, argmax p)] if H(p) <= t log C, else β E[CE(z_q, two classes)]"
    student_taps = (Output(),)

    def __call__(self, step: Step) -> Tensor:
        """The weighted cross-entropy in nats, a scalar >= 0."""
        logits = step.teacher.output.detach()
        sure = entropy(logits) <= self.threshold * math.log(logits.shape[1])
        likeliest = logits.softmax(1).topk(2, dim=1)
        share = likeliest.values / likeliest.values.sum(1, keepdim=True)
        log_q = F.log_softmax(step.student.output, 1).gather(1, likeliest.indices)
        loss = -log_q[:, 0].where(sure, self.auxiliary * (share * log_q).sum(1))
        return loss.mean()
