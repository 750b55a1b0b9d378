"""Variety of synthetic images, measured on the teacher's features."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dreamquant.networks.relu_maps import LastMap


@dataclass(frozen=True)
class Seen:
    """The teacher's features and probabilities of N images.

    Attributes:
        features: (N, F), its last feature map, pooled over space.
        probabilities: (N, classes).
    """

    features: Tensor
    probabilities: Tensor


@dataclass(frozen=True)
class Diversity:
    """Figures of N synthetic images.

    Attributes:
        n: number of images.
        intra_class: mean cosine distance of two images of one class, in [0, 1] for features of a
            ReLU; classes are the teacher's. ``None`` if no class has two images.
        inter_class: mean cosine distance of two classes' mean features; ``None`` for one class.
        label_entropy: entropy of the mean prediction, as a fraction of log(classes): 1 if all
            classes are equally frequent.
        frechet: distance to real images' features as Gaussians (Heusel et al., NeurIPS 2017, with
            the teacher instead of Inception); ``None`` without real images.
    """

    n: int
    intra_class: float | None
    inter_class: float | None
    label_entropy: float
    frechet: float | None


@torch.no_grad()
def look_at(teacher: nn.Module, batches: Iterable[Tensor]) -> Seen | None:
    """The teacher's view of batches of images; ``None`` if none of its ReLUs returns a map."""
    tap, features, probabilities = LastMap(), [], []
    for images in batches:
        with tap.watch(teacher) as collected:
            logits = teacher(images)
        if not collected():
            return None
        features.append(collected()[0].mean((2, 3)).cpu())
        probabilities.append(logits.float().softmax(1).cpu())
    return Seen(torch.cat(features), torch.cat(probabilities))


def diversity(synthetic: Seen, real: Seen | None) -> Diversity:
    """The figures of synthetic images, compared with real ones if there are any."""
    classes = synthetic.probabilities.argmax(1)
    present = classes.bincount().nonzero().flatten()
    groups = [synthetic.features[classes == label] for label in present]
    within = [_mean_distance(group) for group in groups if len(group) > 1]
    centres = torch.stack([group.mean(0) for group in groups])
    mean = synthetic.probabilities.mean(0)
    entropy = -torch.special.xlogy(mean, mean).sum().item()
    return Diversity(
        n=len(classes),
        intra_class=sum(within) / len(within) if within else None,
        inter_class=_mean_distance(centres) if len(centres) > 1 else None,
        label_entropy=entropy / math.log(len(mean)),
        frechet=None if real is None else frechet(synthetic.features, real.features),
    )


def frechet(first: Tensor, second: Tensor) -> float:
    """``||μ₁ - μ₂||² + tr(Σ₁ + Σ₂ - 2 (Σ₁^½ Σ₂ Σ₁^½)^½)`` of two sets of features (N, F)."""
    a, b = first.double(), second.double()
    # For a single feature, the covariance would be a scalar.
    features = a.shape[1], a.shape[1]
    spread_a, spread_b = a.T.cov().view(features), b.T.cov().view(features)
    root = _square_root(spread_a)
    cross = torch.linalg.eigvalsh(root @ spread_b @ root).clamp(min=0).sqrt().sum()
    shift = (a.mean(0) - b.mean(0)).square().sum()
    return float(shift + spread_a.trace() + spread_b.trace() - 2 * cross)


def _square_root(matrix: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(matrix)
    root: Tensor = vectors * values.clamp(min=0).sqrt() @ vectors.T
    return root


def _mean_distance(rows: Tensor) -> float:
    """Mean cosine distance over pairs of different rows (N, F), N > 1."""
    unit = F.normalize(rows, dim=1)
    # The sum over all pairs is the squared length of the sum, so the time is linear in N.
    pairs = len(rows) * (len(rows) - 1)
    alike = (unit.sum(0).square().sum() - unit.square().sum()) / pairs
    return 1 - alike.item()
