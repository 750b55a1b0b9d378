"""Transformed images from which the student learns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from dreamquant.training.batch import Batch
from dreamquant.training.step import Step


class StudentView(Protocol):
    """Transforms a step's images; the student learns from the results in addition to the images.

    Attributes:
        reads_gradient: whether it needs the gradient of the loss with respect to the images.
    """

    @property
    def reads_gradient(self) -> bool:
        """See above."""
        ...

    def __call__(self, step: Step, loss: Tensor) -> Batch:
        """The transformed images.

        Args:
            step: the step whose images the student learns from.
            loss: the student's loss on them.
        """
        ...


class Filter(Protocol):
    """Transforms a step's images; the student learns from the results instead of the images."""

    def __call__(self, images: Tensor) -> Tensor:
        """Transform images (B, C, H, W); the shape stays the same."""
        ...


@dataclass(frozen=True)
class Mixup:
    """Linear interpolation of synthetic images and their targets (Zhang et al., ICLR 2018).

    ``λ x_i + (1 - λ) x_π(i)`` with λ ~ Beta(α, α), the same λ for a whole batch.

    Attributes:
        alpha: of the Beta distribution; 1 draws λ uniformly.
    """

    alpha: float = 1.0
    reads_gradient: ClassVar[bool] = False

    def __call__(self, step: Step, loss: Tensor) -> Batch:
        """The images of the step, mixed with each other."""
        soft = step.targets
        if not soft.is_floating_point():
            output = step.teacher.output
            soft = F.one_hot(soft, output.shape[1]).to(output.dtype)
        images, targets = self.mix(step.images.detach(), soft, step.choice)
        return Batch(images, targets, step.latent)

    def mix(
        self, images: Tensor, targets: Tensor, choice: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Mixed images (B, C, H, W) and soft targets (B, classes)."""
        fraction = self._drawn(choice)
        other = torch.randperm(len(images), generator=choice).to(images.device)
        return (
            fraction * images + (1 - fraction) * images[other],
            fraction * targets + (1 - fraction) * targets[other],
        )

    def _drawn(self, choice: torch.Generator) -> float:
        # Two Gamma draws give a Beta draw: torch's own Beta takes no random generator.
        gammas = torch._standard_gamma(torch.full((2,), self.alpha), generator=choice)
        return float(gammas[0] / gammas.sum())
