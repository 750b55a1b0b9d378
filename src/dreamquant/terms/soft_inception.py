"""Images whose confidence in the teacher is that of the target, and no more: IntraQ (CVPR 2022)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from dreamquant.terms.contract import Step, Term


@dataclass(frozen=True)
class SoftInception(Term):
    """``E[(p_y - t_y)²]`` of images with soft targets, ``E[CE(z_p, y)]`` of the others.

    ``t_y`` is the largest value of the target; a target is hard if this value is 1.
    """

    formula = "E[(p_y - t_y)² if t_y < 1, else CE(z_p, y)]"

    def __call__(self, step: Step) -> Tensor:
        """The mean over the batch, a scalar >= 0."""
        logits, targets = step.teacher.output, step.targets
        if targets.dim() == 1:
            return F.cross_entropy(logits, targets)
        wanted, labels = targets.max(1)
        log_p = F.log_softmax(logits, 1).gather(1, labels[:, None])[:, 0]
        return torch.where(wanted < 1, (log_p.exp() - wanted).square(), -log_p).mean()
