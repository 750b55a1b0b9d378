"""Images of a class that are neither equal nor far apart: IntraQ (Zhong et al., CVPR 2022)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from dreamquant.networks.relu_maps import LastMap
from dreamquant.terms.attention import pooled
from dreamquant.terms.contract import Step, Term


@dataclass(frozen=True)
class MarginalDistance(Term):
    """``E[max(m_l - d, 0) + max(d - m_u, 0)]`` with ``d = 1 - cos(f(x), c_y)``.

    c_y is the mean of the batch's features of that class and takes no gradient; the only image of a
    class is left out.

    Attributes:
        lower: m_l.
        upper: m_u.
    """

    lower: float = 0.05
    upper: float = 0.8
    formula = "E[max(m_l - d, 0) + max(d - m_u, 0)], d = 1 - cos(f(x), c_y)"
    teacher_taps = (LastMap(),)

    def __call__(self, step: Step) -> Tensor:
        """The distance to the band, a scalar in [0, 2]."""
        features, targets = pooled(step.teacher[LastMap()]), step.targets
        labels = targets if targets.dim() == 1 else targets.argmax(1)
        same = (labels[:, None] == labels).to(features)
        count = same.sum(1, keepdim=True)
        centres = same @ features.detach() / count
        distance = 1 - F.cosine_similarity(features, centres, dim=1)
        outside = F.relu(self.lower - distance) + F.relu(distance - self.upper)
        several = count[:, 0] > 1
        return torch.where(several, outside, 0).sum() / several.sum().clamp(min=1)
