"""The student's attention over features equals the teacher's: AKT (ACM SAC 2025)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from dreamquant.networks.module_outputs import NormOutputs
from dreamquant.terms.contract import Step, Term


def spatial_attention(features: Tensor) -> Tensor:
    """Mean of squares over channels, of length 1 for each image: (B, F, ...) to (B, positions)."""
    return F.normalize(features.square().mean(1).flatten(1))


def channel_attention(features: Tensor) -> Tensor:
    """Mean of squares over positions: (B, F, ...) to (B, F)."""
    return features.square().flatten(2).mean(2)


def _divergence(step: Step, attention: Callable[[Tensor], Tensor], temperature: float) -> Tensor:
    """``Σ_l T² KL(softmax(a_l(p)/T) || softmax(a_l(q)/T))``, mean over images."""
    teacher, student = step.teacher[NormOutputs()], step.student[NormOutputs()]
    gaps = [
        F.kl_div(
            F.log_softmax(attention(q) / temperature, 1),
            F.log_softmax(attention(p) / temperature, 1),
            reduction="batchmean",
            log_target=True,
        )
        for p, q in zip(teacher, student, strict=True)
    ]
    return temperature**2 * torch.stack(gaps).sum()


@dataclass(frozen=True)
class SpatialAttentionDistillation(Term):
    """Attention over positions: channels' mean square, of length 1 for each image."""

    temperature: float = 8.0
    formula = "Σ_l T² KL(softmax(s_l(p)/T) || softmax(s_l(q)/T)), s = mean_c A², of length 1"
    teacher_taps = (NormOutputs(),)
    student_taps = (NormOutputs(),)

    def __call__(self, step: Step) -> Tensor:
        """The divergence in nats, a scalar >= 0."""
        return _divergence(step, spatial_attention, self.temperature)


@dataclass(frozen=True)
class ChannelAttentionDistillation(Term):
    """Attention over channels: positions' mean square."""

    temperature: float = 8.0
    formula = "Σ_l T² KL(softmax(c_l(p)/T) || softmax(c_l(q)/T)), c = mean_x A²"
    teacher_taps = (NormOutputs(),)
    student_taps = (NormOutputs(),)

    def __call__(self, step: Step) -> Tensor:
        """The divergence in nats, a scalar >= 0."""
        return _divergence(step, channel_attention, self.temperature)
