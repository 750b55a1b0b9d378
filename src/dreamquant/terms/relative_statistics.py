"""Statistics inside the teacher, compared in units of what it was trained on."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from dreamquant.networks.norm_inputs import BatchNormInputs
from dreamquant.terms.contract import Step, Term

# Of the mean variance of all channels: less is a channel that hardly says anything.
_DEAD = 1e-3
# Of the stored variance, without which the deviation of a constant channel has no gradient.
_LEAST = 1e-3


@dataclass(frozen=True)
class RelativeStatistics(Term):
    """Gap between batch and stored mean and deviation, in stored deviations.

    ``1/L Σ_l mean_c [ ((μ̂_lc - μ_lc) / σ_lc)² + (σ̂_lc / σ_lc - 1)² ]``: every channel counts alike.
    Of MobileNetV1 the absolute gap of variances is a hundred times that of means, and a few
    channels make nearly all of it. Ours.
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
