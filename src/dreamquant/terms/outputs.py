"""Teacher and student compared by what they give alone: ZAQ (CVPR 2021)."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from dreamquant.networks.stage_maps import StageMaps
from dreamquant.networks.taps import Output
from dreamquant.terms.contract import Step, Term


@dataclass(frozen=True)
class OutputDistance(Term):
    """``E|z_q - z_p|``, mean over the batch and over outputs; a generator maximises it."""

    formula = "E|z_q - z_p|"
    student_taps = (Output(),)
    any_output = True

    def __call__(self, step: Step) -> Tensor:
        """The distance, a scalar >= 0."""
        return F.l1_loss(step.student.output, step.teacher.output)


@dataclass(frozen=True)
class Activity(Term):
    """``E|f_p|`` of the teacher's last feature map; a generator maximises it.

    Images that leave the teacher cold are unlike those that it was trained on.
    """

    formula = "E|f_p|, f_p the teacher's last feature map"
    teacher_taps = (StageMaps(),)
    any_output = True

    def __call__(self, step: Step) -> Tensor:
        """The mean size of activations, a scalar >= 0."""
        return step.teacher[StageMaps()][-1].abs().mean()
