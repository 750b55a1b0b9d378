"""Relations of positions and of channels within feature maps: ZAQ (CVPR 2021)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from dreamquant.networks.stage_maps import StageMaps
from dreamquant.terms.contract import Step, Term


def by_positions(x: Tensor, weight: float) -> Tensor:
    """``x`` (B, F, N) and ``weight`` times what each position attends to: (B, F, N)."""
    attention = (x.transpose(1, 2) @ x).softmax(2)
    return x + weight * x @ attention.transpose(1, 2)


def by_channels(x: Tensor, weight: float) -> Tensor:
    """``x`` (B, F, N) and ``weight`` times what each channel attends to: the least alike."""
    attention = (-(x @ x.transpose(1, 2))).softmax(2)
    return x + weight * attention @ x


@dataclass(frozen=True)
class FeatureRelations(Term):
    """``Σ_l E|s(f_l(q)) - s(f_l(p))| + E|c(f_l(q)) - c(f_l(p))|`` over the ends of stages.

    Maps have channels of length 1 at each position; s adds what positions attend to, c what
    channels do, with softmax over inner products (the released code's channel- and space-wise
    relation maps).

    Attributes:
        attended: weight of what is attended to.
        side: largest side of a map: larger ones are first averaged to it (ours, for attention
            between all positions grows with the fourth power of the side).
    """

    attended: float = 0.1
    side: int = 16
    formula = "Σ_l E|s(f_l(q)) - s(f_l(p))| + E|c(f_l(q)) - c(f_l(p))|, s and c self-attention"
    teacher_taps = (StageMaps(),)
    student_taps = (StageMaps(),)
    any_output = True

    def __call__(self, step: Step) -> Tensor:
        """The distance, a scalar >= 0."""
        teacher, student = step.teacher[StageMaps()], step.student[StageMaps()]
        return torch.stack(
            [
                F.l1_loss(relate(q, self.attended), relate(p, self.attended))
                for p, q in zip(map(self._map, teacher), map(self._map, student), strict=True)
                for relate in (by_positions, by_channels)
            ]
        ).sum()

    def _map(self, features: Tensor) -> Tensor:
        """(B, F, N) of (B, F, h, w)."""
        height, width = (min(side, self.side) for side in features.shape[2:])
        small = F.adaptive_avg_pool2d(features, (height, width))
        return F.normalize(small.flatten(2), dim=1)
