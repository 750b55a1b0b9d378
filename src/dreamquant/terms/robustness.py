"""Images whose answers do not change by small perturbations: RIS (AAAI 2024).

Real images lie in smooth regions of the teacher's loss landscape; synthetic images may not, even if
they are classified correctly. The change of the teacher's features and predictions by a
perturbation distinguishes them.

Confirmed: perturbing inputs by a randomly chosen augmentation and weights by Gaussian noise;
inconsistencies of features and predictions by cosine distance and L1; a threshold that refers to
noise images. Ours, because no code is public: cosine for features and L1 for probabilities, the
hinge, gradient through both branches, and every number.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from dreamquant.networks.relu_maps import LastMap
from dreamquant.terms.attention import pooled
from dreamquant.terms.augment import random_view
from dreamquant.terms.contract import Step, Term, View


def inconsistency(clean: View, perturbed: Sequence[View]) -> Tensor:
    """Distance of perturbed answers from the clean one, (2, B), mean over perturbations.

    Row 0: ``1 - cos`` of the pooled features, in [0, 2]. Row 1: L1 of the probabilities, in [0, 2].
    """
    probabilities = clean.output.softmax(1)
    features = pooled(clean[LastMap()])
    feature = [1 - F.cosine_similarity(features, pooled(p[LastMap()]), dim=1) for p in perturbed]
    prediction = [(probabilities - p.output.softmax(1)).abs().sum(1) for p in perturbed]
    return torch.stack([torch.stack(feature).mean(0), torch.stack(prediction).mean(0)])


@dataclass(frozen=True)
class InputRobustness(Term):
    """``Σ_k E[max(D_k(x) - ε_k, 0)]`` over features and predictions, under n random views.

    Attributes:
        views: n; the views are drawn in each step.
        threshold: ε as a fraction of the mean inconsistency of Gaussian-noise images.
    """

    views: int = 1
    threshold: float = 0.5
    formula = "Σ_k E[max(D_k(x) - ε_k, 0)]"
    teacher_taps = (LastMap(),)

    def __call__(self, step: Step) -> Tensor:
        """The excess inconsistency, a scalar in [0, 4]."""
        return _excess(self.inconsistency(step), step.reference(self.inconsistency), self.threshold)

    def inconsistency(self, step: Step) -> Tensor:
        """Of the step's images under random views, (2, B)."""
        views = (random_view(step.images, step.choice) for _ in range(self.views))
        return inconsistency(step.teacher, [step.teacher.on(view) for view in views])


@dataclass(frozen=True)
class WeightRobustness(Term):
    """The same under m copies of the teacher with Gaussian noise on its weights.

    Attributes:
        copies: m, drawn anew each step.
        noise: deviation of the noise in units of each weight tensor's own.
        threshold: as for :class:`InputRobustness`.
    """

    copies: int = 1
    noise: float = 0.02
    threshold: float = 0.5
    formula = "Σ_k E[max(D_k(x) - ε_k, 0)]"
    teacher_taps = (LastMap(),)

    def __call__(self, step: Step) -> Tensor:
        """The excess inconsistency, a scalar in [0, 4]."""
        return _excess(self.inconsistency(step), step.reference(self.inconsistency), self.threshold)

    def inconsistency(self, step: Step) -> Tensor:
        """Of the step's images under weight noise, (2, B)."""
        noisy = [step.teacher.under_weight_noise(self.noise) for _ in range(self.copies)]
        return inconsistency(step.teacher, noisy)


def _excess(found: Tensor, reference: Tensor, threshold: float) -> Tensor:
    allowed = threshold * reference.mean(1, keepdim=True)
    return F.relu(found - allowed).mean(1).sum()
