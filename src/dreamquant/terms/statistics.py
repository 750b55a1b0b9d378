"""Images whose statistics inside the teacher equal those of its training data."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from dreamquant.networks.norm_inputs import BatchNormInputs
from dreamquant.terms.contract import Step, Term


@dataclass(frozen=True)
class BatchNormStatistics(Term):
    """Squared difference between batch and stored statistics at every batch norm's input.

    ``1/L Σ_l [ mean_c (μ̂_lc - μ_lc)² + mean_c (σ̂²_lc - σ²_lc)² ]``: variances, not deviations;
    the mean over channels, then over layers. GDFQ (ECCV 2020), eq. 3, as in its code.
    """

    formula = "1/L Σ_l [ mean_c (μ̂_lc - μ_lc)² + mean_c (σ̂²_lc - σ²_lc)² ]"
    teacher_taps = (BatchNormInputs(),)
    any_output = True

    def __call__(self, step: Step) -> Tensor:
        """The gap, a scalar >= 0."""
        s = step.teacher[BatchNormInputs()]
        gap = (s.mean - s.stored_mean).square() + (s.var - s.stored_var).square()
        return (s.weight * gap).sum()


@dataclass(frozen=True)
class BatchNormDeviations(Term):
    """The same difference with deviations in place of variances, summed over layers.

    ``Σ_l [ mean_c (μ̂_lc - μ_lc)² + mean_c (σ̂_lc - σ_lc)² ]``. GENIE (CVPR 2023), as in its code.

    Attributes:
        epsilon: added to variances before the root.
    """

    epsilon: float = 1e-6
    formula = "Σ_l [ mean_c (μ̂_lc - μ_lc)² + mean_c (σ̂_lc - σ_lc)² ]"
    teacher_taps = (BatchNormInputs(),)

    def __call__(self, step: Step) -> Tensor:
        """The gap, a scalar >= 0."""
        s = step.teacher[BatchNormInputs()]
        deviation, stored = (s.var + self.epsilon).sqrt(), (s.stored_var + self.epsilon).sqrt()
        gap = (s.mean - s.stored_mean).square() + (deviation - stored).square()
        return len(s.sizes) * (s.weight * gap).sum()
