"""Statistics with slack, and one emphasised layer for each image: DSG (Zhang et al., CVPR 2021)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dreamquant.networks.norm_inputs import BatchNormInputs, Statistics
from dreamquant.terms.contract import Step, Term


@dataclass(frozen=True)
class SlackStatistics(Term):
    """Differences of an image's statistics beyond the slack of a layer; one layer has more weight.

    ``1/B Σ_b Σ_l w_bl mean_c [ max(|m_lc(x_b) - μ_lc| - δ_l, 0)² + ... ]``, and the same for
    deviations. The slack δ of a layer is a quantile of its differences on Gaussian noise. Image b
    has weight ``emphasis`` at layer b mod L, so that images differ.

    Attributes:
        quantile: in [0, 1]; 0 leaves almost no slack.
        emphasis: weight of an image at its own layer.
    """

    quantile: float = 0.5
    emphasis: float = 2.0
    formula = "1/B Σ_b Σ_l w_bl mean_c [ max(|m_lc(x_b) - μ_lc| - δ_l, 0)² + ... ]"
    teacher_taps = (BatchNormInputs(per_image=True),)
    any_output = True

    def __call__(self, step: Step) -> Tensor:
        """The excess gap, a scalar >= 0."""
        gaps = self._gaps(step.teacher[BatchNormInputs(per_image=True)])
        allowed = step.reference(self.slack)
        own = torch.arange(len(step.images), device=gaps[0].device) % len(gaps)
        excess = [
            (gap - slack[:, None, None]).clamp(min=0).square().mean(2).sum(0)
            * torch.where(own == layer, self.emphasis, 1.0)
            for layer, (gap, slack) in enumerate(zip(gaps, allowed.unbind(1), strict=True))
        ]
        return torch.stack(excess).sum(0).mean()

    def slack(self, step: Step) -> Tensor:
        """Of each layer, means and deviations apart: (2, layers)."""
        gaps = self._gaps(step.teacher[BatchNormInputs(per_image=True)])
        return torch.stack([gap.flatten(1).quantile(self.quantile, 1) for gap in gaps], 1)

    def _gaps(self, s: Statistics) -> list[Tensor]:
        """Of each layer, means' and deviations' gaps (2, B, F)."""
        spread = (s.var + 1e-6).sqrt() - (s.stored_var + 1e-6).sqrt()
        both = torch.stack([s.mean - s.stored_mean, spread]).abs()
        return list(torch.split(both, list(s.sizes), 2))
