"""The loss of block reconstruction: a unit's output is compared with the teacher's."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from dreamquant.networks.taps import Output
from dreamquant.terms.contract import Step, Term

# The condition that holds the weight of each output channel, (1, channels) or (1, 1).
CHANNEL_WEIGHTS = "channel_weights"


@dataclass(frozen=True)
class UnitError(Term):
    """``Σ_c v_c E[(y_q - y_p)²_c]``, the mean over images and positions, the sum over channels.

    BRECQ (ICLR 2021) without its weights by Fisher information. The weight ``v_c`` is 1, or the
    square of the factor by which the batch norm after a single layer multiplies the channel: this
    weight is ours.
    """

    formula = "Σ_c v_c E[(y_q - y_p)²_c]"
    student_taps = (Output(),)
    any_output = True

    def __call__(self, step: Step) -> Tensor:
        """The weighted squared error, a scalar >= 0."""
        gap = (step.student.output - step.teacher.output).square()
        channels = gap.dim() - 1 if gap.dim() == 3 else 1  # tokens have their channels last
        over = [axis for axis in range(gap.dim()) if axis != channels]
        return (gap.mean(over) * step.condition(CHANNEL_WEIGHTS)[0]).sum()
