"""Statistics inside the teacher, compared in units of the stored deviations."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from dreamquant.networks.norm_inputs import BatchNormInputs
from dreamquant.terms.contract import Step, Term

# Fraction of the mean variance of all channels: a channel with less carries almost no signal.
_DEAD = 1e-3
# Fraction of the stored variance; without it the deviation of a constant channel has no gradient.
_LEAST = 1e-3


@dataclass(frozen=True)
class RelativeStatistics(Term):
    """Differences of batch and stored means and deviations, in units of stored deviations.

    ``1/L Σ_l mean_c [ ((μ̂_lc - μ_lc) / σ_lc)² + (σ̂_lc / σ_lc - 1)² ]``: every channel has the
    same weight. In MobileNetV1 the absolute difference of variances is a hundred times that of
    means, and a few channels cause almost all of it. Ours.
    """

    formula = "1/L Σ_l mean_c [ ((μ̂_lc - μ_lc) / σ_lc)² + (σ̂_lc / σ_lc - 1)² ]"
    teacher_taps = (BatchNormInputs(),)
    any_output = True

    def __call__(self, step: Step) -> Tensor:
        """The gap, a scalar >= 0."""
        s = step.teacher[BatchNormInputs()]
        stored = s.stored_var.clamp(min=_DEAD * s.stored_var.mean())
        mean = (s.mean - s.stored_mean).square() / stored
        deviation = ((s.var + _LEAST * stored).sqrt() / stored.sqrt() - 1).square()
        return (s.weight * (mean + deviation)).sum()
