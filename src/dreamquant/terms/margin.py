"""More supervision where teacher and student agree: AGM (Luo et al., IEEE TCSVT 2024).

Confirmed, from the abstract alone: a generator's updates stagnate in mid and late training; the
teacher-student discrepancy supervises it through an adversarial Gaussian-margin loss that supplies
more where the discrepancy is small. The formula is not public. All three candidates are ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from dreamquant.networks.taps import Output
from dreamquant.terms.contract import Step, Term

Kind = Literal["kernel", "repulsion", "random-margin"]


@dataclass(frozen=True)
class GaussianMargin(Term):
    """Moves images to where teacher and student differ, once the student learns.

    With ``d = mean_c |z_p - z_q|`` for each image:

    - ``kernel``: ``E[exp(-d²/2σ²)]``; its gradient vanishes at d = 0 and far beyond σ.
    - ``repulsion``: ``-E[w d]`` with ``w = exp(-d²/2σ²)`` held constant; its gradient is the
      Gaussian itself, largest at d = 0.
    - ``random-margin``: ``E[max(m - d, 0)]`` with ``m = |N(0, σ²)|`` drawn for each image.

    Attributes:
        kind: one of the three.
        sigma: σ, in units of logits.
    """

    kind: Kind = "random-margin"
    sigma: float = 1.0
    formula = "kernel: E[exp(-d²/2σ²)]; repulsion: -E[w d]; random-margin: E[max(m - d, 0)]"
    student_taps = (Output(),)

    def __call__(self, step: Step) -> Tensor:
        """The loss, a scalar; zero while the student only watches."""
        if not step.student_learns:
            return step.images.new_zeros(())
        gap = (step.teacher.output - step.student.output).abs().mean(1)
        kernel = (-gap.square() / (2 * self.sigma**2)).exp()
        if self.kind == "kernel":
            return kernel.mean()
        if self.kind == "repulsion":
            return -(kernel.detach() * gap).mean()
        drawn = torch.randn(gap.shape, generator=step.random, device=gap.device)
        margin = self.sigma * drawn.abs()
        return F.relu(margin - gap).mean()
