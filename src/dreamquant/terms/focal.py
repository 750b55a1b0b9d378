"""Images that the teacher finds hard: HAST (Li et al., CVPR 2023)."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from dreamquant.terms.contract import Step, Term


@dataclass(frozen=True)
class FocalCrossEntropy(Term):
    """``E[(1 - p_y)^γ CE(z_p, y)]``: images with a confident teacher have little weight.

    Gradients go through ``p_y`` too, as in the released code.

    Attributes:
        power: γ.
    """

    power: float = 2.0
    formula = "E[(1 - p_y)^γ CE(z_p, y)]"

    def __call__(self, step: Step) -> Tensor:
        """The weighted cross-entropy in nats, a scalar >= 0."""
        entropy = F.cross_entropy(step.teacher.output, step.targets, reduction="none")
        # 1 - exp(-CE), without losing digits where CE is small; the root of 0 has no derivative.
        difficulty = -(-entropy).expm1()
        return (difficulty.clamp(min=1e-6) ** self.power * entropy).mean()
