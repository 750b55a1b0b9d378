"""Labels only for images that the teacher finds easy: SynQ (ICLR 2025)."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from dreamquant.networks.taps import Output
from dreamquant.terms.contract import Step, Term


@dataclass(frozen=True)
class GatedCrossEntropy(Term):
    """``E[1(δ <= τ) CE(z_q, y)]`` with the difficulty ``δ = 1 - p_y`` of the teacher.

    Where the teacher gives the label a low probability, the label may be wrong.

    Attributes:
        threshold: τ.
    """

    threshold: float = 0.5
    formula = "E[1(δ <= τ) CE(z_q, y)], δ = 1 - p_y"
    student_taps = (Output(),)

    def __call__(self, step: Step) -> Tensor:
        """The cross-entropy of easy images in nats over the number of all, a scalar >= 0."""
        targets = step.targets
        labels = targets if targets.dim() == 1 else targets.argmax(1)
        sure = step.teacher.output.detach().softmax(1).gather(1, labels[:, None])[:, 0]
        entropy = F.cross_entropy(step.student.output, labels, reduction="none")
        return entropy.where(1 - sure <= self.threshold, 0).mean()
