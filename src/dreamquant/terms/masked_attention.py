"""Images whose attention survives quantization and differs between queries: MaskAQ (ICML 2026)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from dreamquant.networks.attention_taps import AttentionScores, PatchAttention
from dreamquant.terms.contract import Step, Term


@dataclass(frozen=True)
class MaskedAlignment(Term):
    """``E_l[Σ_{i ∈ M} |A_p - A_q| / |M|]``, minimised by the images; A is each patch's attention.

    M are the patches with the most attention in the teacher, without some random ones.

    Attributes:
        fraction: fraction of the patches, those with the most attention.
        dropped: fraction of these that is dropped at random; at least one is kept.
    """

    fraction: float = 0.3
    dropped: float = 0.3
    formula = "E_l[Σ_{i ∈ M} |A_p - A_q| / |M|], M attended patches, some dropped"
    teacher_taps = (PatchAttention(),)
    student_taps = (PatchAttention(),)

    def __call__(self, step: Step) -> Tensor:
        """The mean distance, a scalar in [0, 1]."""
        teacher, student = step.teacher[PatchAttention()], step.student[PatchAttention()]
        pairs = zip(teacher, student, strict=True)
        layers = [self._layer(p.mean(1), q.mean(1), step.random) for p, q in pairs]
        return torch.stack(layers).mean()

    def _layer(self, teacher: Tensor, student: Tensor, random: torch.Generator) -> Tensor:
        attended = math.ceil(self.fraction * teacher.shape[1])
        kept = max(1, attended - round(self.dropped * attended))
        top = teacher.topk(attended, dim=1).indices
        chance = torch.rand(top.shape, generator=random, device=top.device)
        mask = top.gather(1, chance.topk(kept, dim=1).indices)
        return (teacher - student).abs().gather(1, mask).mean()


@dataclass(frozen=True)
class AttentionDiversity(Term):
    """``-½ E[log(2π e σ²)]``, σ² the variance of cosine similarities between rows of q·kᵀ.

    This is the negative entropy of a Gaussian. Rows are means over heads, one for each patch; their
    similarities are to vary.

    Attributes:
        patches: number of patches drawn from those of an image.
    """

    patches: int = 64
    formula = "-½ E[log(2π e σ²)], σ² of the cosine similarities between rows of q·kᵀ"
    teacher_taps = (AttentionScores(),)

    def __call__(self, step: Step) -> Tensor:
        """The negative entropy in nats, a scalar."""
        layers = [self._layer(s.mean(1), step.random) for s in step.teacher[AttentionScores()]]
        return torch.stack(layers).mean()

    def _layer(self, scores: Tensor, random: torch.Generator) -> Tensor:
        drawn = torch.randperm(scores.shape[1], generator=random, device=scores.device)
        rows = F.normalize(scores[:, drawn[: self.patches]], dim=-1, eps=1e-8)
        variance = (rows @ rows.transpose(1, 2)).flatten(1).var(1, correction=0) + 1e-8
        return -0.5 * (2 * math.pi * math.e * variance).log().mean()
