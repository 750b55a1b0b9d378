"""Images whose attention has its centre at a given place: ACQ (Li et al., arXiv 2301.07266).

Confirmed, from two abstracts: synthetic images of a class share nearly one attention map, and that
map differs between the teacher's evaluation and training modes; remedies are a generator
conditioned on an attention centre, a coarse centre-matching loss, an adversarial loss on pairs of
the same condition, and a consistency penalty between modes. The formulas and numbers are ours.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from dreamquant.networks.relu_maps import LastMap
from dreamquant.terms.contract import Step, Term

CENTRE = "attention centre"  # the condition: (B, 2), row then column in [0, 1] of the side


def attention_map(activation: Tensor) -> Tensor:
    """``Σ_c A_c²`` normalised to sum 1 over positions: (B, F, h, w) to (B, h, w)."""
    energy = activation.square().sum(1)
    return energy / energy.sum((1, 2), keepdim=True).clamp(min=1e-12)


def pooled(activation: Tensor) -> Tensor:
    """A feature map's mean over positions: (B, F, h, w) to (B, F)."""
    return activation.mean((2, 3))


def attention_centre(attention: Tensor) -> Tensor:
    """Centre of mass (B, 2), row then column, in [0, 1] of the image; (B, h, w) sums to 1."""
    height, width = attention.shape[1:]
    rows = (torch.arange(height, device=attention.device) + 0.5) / height
    columns = (torch.arange(width, device=attention.device) + 0.5) / width
    return torch.stack(
        [(attention.sum(2) * rows).sum(1), (attention.sum(1) * columns).sum(1)], dim=1
    )


@dataclass(frozen=True)
class CentreMatching(Term):
    """``E ||c(x) - c*||²``: the distance of the teacher's attention centre from the given one."""

    formula = "E ||c(x) - c*||²"
    teacher_taps = (LastMap(),)

    def __call__(self, step: Step) -> Tensor:
        """The squared distance in units of the image's side, a scalar in [0, 2]."""
        centre = attention_centre(attention_map(step.teacher[LastMap()]))
        return (centre - step.condition(CENTRE)).square().sum(1).mean()


@dataclass(frozen=True)
class PairDiversity(Term):
    """``-E[min(||f(x₁) - f(x₂)||₁ / ||z₁ - z₂||₁, cap)]`` over pairs of one label and centre.

    The mode-seeking form (Mao et al., CVPR 2019): the conditions are equal and the noise differs,
    so the images must depend on the noise. Norms are means over their elements.

    Attributes:
        cap: a pair with at least this ratio differs enough.
    """

    cap: float = 1.0
    formula = "-E[min(||f(x₁) - f(x₂)||₁ / ||z₁ - z₂||₁, cap)]"
    teacher_taps = (LastMap(),)

    def __call__(self, step: Step) -> Tensor:
        """The negative ratio, a scalar in [-cap, 0]."""
        features, noise = pooled(step.teacher[LastMap()]), step.latent
        apart = (features[0::2] - features[1::2]).abs().mean(1)
        drawn = (noise[0::2] - noise[1::2]).abs().mean(1)
        return -(apart / drawn.clamp(min=1e-5)).clamp(max=self.cap).mean()


@dataclass(frozen=True)
class ModeConsistency(Term):
    """``E Σ_uv (M_eval - M_train)² · hw``: the attention is the same with both kinds of statistics.

    The training-mode pass normalises by the batch and does not change the running statistics. The
    factor hw makes the penalty independent of the map's size.
    """

    formula = "E Σ_uv (M_eval - M_train)² · hw"
    teacher_taps = (LastMap(),)

    def __call__(self, step: Step) -> Tensor:
        """The squared difference, a scalar >= 0."""
        evaluating = attention_map(step.teacher[LastMap()])
        training = attention_map(step.teacher.in_training_mode[LastMap()])
        return F.mse_loss(evaluating, training) * evaluating[0].numel() ** 2
