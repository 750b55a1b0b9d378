"""Images whose statistics stay near those of their class's calibration image: TexQ."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from dreamquant.networks.norm_inputs import BatchNormInputs, Statistics
from dreamquant.terms.contract import Step, Term

CALIBRATION = "calibration centre"  # the condition: (B, 2 F), see centre_of


def centre_of(s: Statistics) -> Tensor:
    """Means and deviations of each image at all batch norms, (B, 2 F).

    They are differences from the stored means in units of the stored deviations, so that all layers
    have similar weight.
    """
    spread = (s.stored_var + 1e-6).sqrt()
    return torch.cat([(s.mean - s.stored_mean) / spread, (s.var + 1e-6).sqrt() / spread], 1)


@dataclass(frozen=True)
class CentreDistance(Term):
    """``E[max(d - θ_U, 0) + max(θ_L - d, 0)]`` with ``d = 1 - cos(c(x), c_y)``.

    c(x) are an image's statistics, c_y those of its class's calibration image. Confirmed: a
    distance to the centres that is kept between two bounds. The distance and its bounds are ours.

    Attributes:
        lower: θ_L; it prevents that all images equal the calibration image.
        upper: θ_U.
    """

    lower: float = 0.015
    upper: float = 0.3
    formula = "E[max(d - θ_U, 0) + max(θ_L - d, 0)], d = 1 - cos(c(x), c_y)"
    teacher_taps = (BatchNormInputs(per_image=True),)

    def __call__(self, step: Step) -> Tensor:
        """The distance to the band, a scalar in [0, 2]."""
        own = centre_of(step.teacher[BatchNormInputs(per_image=True)])
        distance = 1 - F.cosine_similarity(own, step.condition(CALIBRATION), dim=1)
        return (F.relu(distance - self.upper) + F.relu(self.lower - distance)).mean()
