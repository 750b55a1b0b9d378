"""The student's heads return what the teacher's return: MimiQ (AAAI 2025), MaskAQ (ICML 2026)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from dreamquant.networks.attention_taps import HeadOutputs, PatchAttention
from dreamquant.terms.contract import Step, Term
from dreamquant.terms.structural_similarity import scaled, similarity


@dataclass(frozen=True)
class HeadDistillation(Term):
    """``E[1 - SSIM(O_q, O_p)]`` over layers, images, heads and tokens; O is attention times values.

    Each token's vector is scaled to [0, 1] first: SSIM's constants are for such values.
    """

    formula = "E[1 - SSIM(O_q, O_p)], O the outputs of heads"
    teacher_taps = (HeadOutputs(),)
    student_taps = (HeadOutputs(),)

    def __call__(self, step: Step) -> Tensor:
        """The dissimilarity, a scalar in [0, 2]."""
        student, teacher = step.student[HeadOutputs()], step.teacher[HeadOutputs()]
        pairs = zip(student, teacher, strict=True)
        layers = [1 - similarity(scaled(q), scaled(p)).whole.mean() for q, p in pairs]
        return torch.stack(layers).mean()


@dataclass(frozen=True)
class StructureDistillation(Term):
    """``E[w (1 - s(O_q, O_p))]``, s the structure part of SSIM; w is larger for attended tokens.

    Attributes:
        fraction: of the patches, those that the teacher attends most.
        attended: w of these; 1 for all others.
    """

    fraction: float = 0.1
    attended: float = 2.0
    formula = "E[w (1 - s(O_q, O_p))], s the structure part of SSIM, w by attention"
    teacher_taps = (HeadOutputs(), PatchAttention())
    student_taps = (HeadOutputs(),)

    def __call__(self, step: Step) -> Tensor:
        """The weighted dissimilarity, a scalar >= 0."""
        outputs, attention = step.teacher[HeadOutputs()], step.teacher[PatchAttention()]
        student = step.student[HeadOutputs()]
        layers = zip(student, outputs, attention, strict=True)
        return torch.stack([self._layer(*layer) for layer in layers]).mean()

    def _layer(self, student: Tensor, teacher: Tensor, attention: Tensor) -> Tensor:
        apart = 1 - similarity(scaled(student), scaled(teacher)).structure
        weight = torch.ones_like(apart[:, 0])
        patches = attention.shape[-1]
        top = attention.mean(1).topk(math.ceil(self.fraction * patches), dim=1).indices
        weight.scatter_(1, top + weight.shape[1] - patches, self.attended)
        return (weight[:, None] * apart).mean()
