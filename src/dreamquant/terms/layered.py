"""Statistics with a large weight for deep layers and a small one for shallow layers: TexQ."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dreamquant.networks.norm_inputs import BatchNormInputs
from dreamquant.terms.contract import Step, Term


@dataclass(frozen=True)
class LayeredStatistics(Term):
    """``1/L Σ_l w_l [ mean_c (μ̂_lc - μ_lc)² + mean_c (σ̂²_lc - σ²_lc)² ]``. TexQ (NeurIPS 2023).

    Attributes:
        shallow: weight of the first half of the layers.
        deep: weight of the second half.
    """

    shallow: float = 0.2
    deep: float = 1.1
    formula = "1/L Σ_l w_l [ mean_c (μ̂_lc - μ_lc)² + mean_c (σ̂²_lc - σ²_lc)² ]"
    teacher_taps = (BatchNormInputs(),)

    def __call__(self, step: Step) -> Tensor:
        """The weighted gap, a scalar >= 0."""
        s = step.teacher[BatchNormInputs()]
        half = len(s.sizes) // 2
        weights = [self.shallow if layer < half else self.deep for layer in range(len(s.sizes))]
        per_channel = s.weight * torch.cat(
            [s.weight.new_full((n,), w) for n, w in zip(s.sizes, weights, strict=True)]
        )
        gap = (s.mean - s.stored_mean).square() + (s.var - s.stored_var).square()
        return (per_channel * gap).sum()
