"""Heads of attention with similar maps: MimiQ (AAAI 2025)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dreamquant.networks.attention_taps import AttentionScores
from dreamquant.terms.contract import Step, Term
from dreamquant.terms.structural_similarity import scaled, similarity


@dataclass(frozen=True)
class HeadSimilarity(Term):
    """``E[1 - SSIM(A_i, A_j)²]`` over layers, images, queries and pairs of heads.

    A_i is the row of q·kᵀ that one query patch has in head i, before softmax, scaled to [0, 1].
    """

    formula = "E[1 - SSIM(A_i, A_j)²] over pairs of heads, A the scaled rows of q·kᵀ"
    teacher_taps = (AttentionScores(heads=2),)

    def __call__(self, step: Step) -> Tensor:
        """The dissimilarity, a scalar in [0, 1]."""
        layers = step.teacher[AttentionScores(heads=2)]
        return torch.stack([_dissimilarity(scores) for scores in layers]).mean()


def _dissimilarity(scores: Tensor) -> Tensor:
    heads = scores.shape[1]
    first, second = torch.triu_indices(heads, heads, 1, device=scores.device)
    rows = scaled(scores)
    return 1 - similarity(rows[:, first], rows[:, second]).whole.square().mean()
