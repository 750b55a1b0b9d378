"""A generator led by how far the student is behind: GapSSG (IEEE TPAMI 2024)."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from dreamquant import distributed
from dreamquant.networks.taps import Output
from dreamquant.terms.contract import Step, Term


@dataclass(frozen=True)
class GapBalance(Term):
    """``(1 - e^-g) (CE((z_p - z_q)/2, y) + α CE(z_p + z_q, y))``.

    AdaDFQ's two kinds of images, that only the teacher or that both get right, count the more the
    larger the gap ``g = E[max_c |p_p - p_q|]`` of the two networks' probabilities is. The gap is a
    constant to the gradient.

    Attributes:
        agree: α, of images that both get right.
    """

    agree: float = 0.2
    formula = "(1 - e^-g) (CE((z_p - z_q)/2, y) + α CE(z_p + z_q, y)), g = E[max_c |p_p - p_q|]"
    student_taps = (Output(),)

    def __call__(self, step: Step) -> Tensor:
        """The weighted cross-entropies in nats, a scalar >= 0."""
        z_p, z_q = step.teacher.output, step.student.output
        apart = F.cross_entropy((z_p - z_q) / 2, step.targets)
        together = F.cross_entropy(z_p + z_q, step.targets)
        behind = (z_p.detach().softmax(1) - z_q.detach().softmax(1)).abs().amax(1)
        gap = distributed.mean(behind.mean())
        return (1 - (-gap).exp()) * (apart + self.agree * together)
