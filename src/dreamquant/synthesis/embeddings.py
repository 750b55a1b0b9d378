"""How the label of an image enters a generator: embeddings of labels, combined with noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dreamquant.networks.classifier_input import classifier_weight
from dreamquant.training.bench import Bench

_EPSILON = 1e-5  # added to a variance, as in batch norms


def look_up(embedding: nn.Embedding, targets: Tensor) -> Tensor:
    """The embeddings (B, d) of labels (B,), or their mixture for soft targets (B, classes)."""
    if targets.is_floating_point():
        return targets @ embedding.weight
    return F.embedding(targets, embedding.weight)


class NoiseAlone(nn.Module):
    """The noise unchanged: the generator takes labels elsewhere."""

    def forward(self, noise: Tensor, targets: Tensor) -> Tensor:
        """``noise`` (B, d)."""
        return noise


class TimesNoise(nn.Embedding):
    """The label's embedding times the noise (GDFQ)."""

    def forward(self, noise: Tensor, targets: Tensor) -> Tensor:  # type: ignore[override]
        """(B, d) for ``noise`` (B, d) and targets."""
        return look_up(self, targets) * noise


class PlusNoise(nn.Embedding):
    """Normalised sums of embedding and noise, superposed by soft targets (Qimera, NeurIPS 2021).

    ``Σ_c t_c n(e_c + z)``, where n gives a vector mean 0 and variance 1. All classes c of an image
    use the same noise z, which is ours: the released code draws one for each class.

    Args:
        start: first embeddings, (classes, d).
    """

    def __init__(self, start: Tensor) -> None:
        classes, features = start.shape
        super().__init__(classes, features, _weight=start.clone())

    def forward(self, noise: Tensor, targets: Tensor) -> Tensor:  # type: ignore[override]
        """(B, d) for ``noise`` (B, d) and targets."""
        if not targets.is_floating_point():
            return F.layer_norm(look_up(self, targets) + noise, noise.shape[1:], eps=_EPSILON)
        # Variances of all sums e_c + z from inner products: none of the sums is ever stored.
        rows, z = _centred(self.weight), _centred(noise)
        var = _mean_square(rows) + _mean_square(z)[:, None] + 2 * (z @ rows.T) / noise.shape[1]
        weight = targets * torch.rsqrt(var + _EPSILON)
        return weight @ rows + weight.sum(1, keepdim=True) * z


def _centred(vectors: Tensor) -> Tensor:
    return vectors - vectors.mean(1, keepdim=True)


def _mean_square(vectors: Tensor) -> Tensor:
    return vectors.square().mean(1)


@dataclass(frozen=True)
class Superposed:
    """Embeddings that are added to the noise, and mixed where targets are soft (Qimera).

    Attributes:
        start: ``random`` embeddings, or the rows of the weight of the ``classifier``, which must
            have one row for each class.
    """

    start: Literal["random", "classifier"] = "random"

    def build(self, bench: Bench, latent: int) -> PlusNoise:
        """The embeddings of a run.

        Raises:
            NetworkError: the teacher's last layer does not have one row for each class.
        """
        classes = bench.input.num_classes
        if self.start == "random":
            return PlusNoise(torch.randn(classes, latent))
        return PlusNoise(classifier_weight(bench.teacher, bench.example(), classes))
