"""Patches that attention distinguishes: PSAQ-ViT (Li et al., ECCV 2022)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from dreamquant.networks.attention_taps import PatchTokens
from dreamquant.terms.contract import Step, Term

_FLOOR = 1e-4  # added to densities, as in the released code


@dataclass(frozen=True)
class PatchSimilarityEntropy(Term):
    """``-Σ_l E[H(Γ_l(x))]``, H the differential entropy of cosine similarities Γ between patches.

    The density of an image's similarities is a sum of Gaussians. It is evaluated at a few points
    between the smallest and the largest similarity of the batch, and integrated by the trapezoidal
    rule.

    Attributes:
        bandwidth: deviation of a Gaussian.
        points: number of points of the integral.
    """

    bandwidth: float = 0.01
    points: int = 10
    formula = "-Σ_l E[H(Γ_l(x))], Γ the cosine similarities of patches after attention"
    teacher_taps = (PatchTokens(),)

    def __call__(self, step: Step) -> Tensor:
        """The negative entropy in nats, summed over layers, a scalar."""
        return -torch.stack([self._entropy(t) for t in step.teacher[PatchTokens()]]).sum()

    def _entropy(self, tokens: Tensor) -> Tensor:
        """Of ``tokens`` (B, patches, width), mean over images."""
        unit = F.normalize(tokens, dim=-1, eps=1e-8)
        similarity = (unit @ unit.transpose(1, 2)).flatten(1)
        low, high = similarity.detach().aminmax()
        position = torch.linspace(0, 1, self.points, device=tokens.device)
        x = low + (high - low) * position
        # One point after another, because all points at once would need much more memory.
        density = torch.stack([self._density(similarity, point) for point in x], dim=1) + _FLOOR
        return torch.trapezoid(-density * density.log(), x, dim=1).mean()

    def _density(self, similarity: Tensor, point: Tensor) -> Tensor:
        """(B,) at ``point``, of ``similarity`` (B, pairs)."""
        gap = (similarity - point) / self.bandwidth
        height = 1 / (self.bandwidth * math.sqrt(2 * math.pi))
        return height * torch.exp(-0.5 * gap.square()).mean(1)
