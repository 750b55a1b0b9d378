"""Other images than those that were made, for the student to learn from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from dreamquant.training.batch import Batch
from dreamquant.training.step import Step


class StudentView(Protocol):
    """Makes other images of a step's; the student learns from both.

    Attributes:
        reads_gradient: whether it asks for the gradient of the loss with respect to the images.
    """

    @property
    def reads_gradient(self) -> bool:
        """See above."""
        ...

    def __call__(self, step: Step, loss: Tensor) -> Batch:
        """The other images.

        Args:
            step: whose images the student learns from.
            loss: of the student on them.
        """
        ...


class Filter(Protocol):
    """Makes images that stand in for those that were made: the student learns from them alone."""

    def __call__(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W) for as many."""
        ...


@dataclass(frozen=True)
class Mixup:
    """Linear interpolation of synthetic images and their targets (Zhang et al., ICLR 2018).

    ``λ x_i + (1 - λ) x_π(i)`` with λ ~ Beta(α, α), one λ a batch.

    Attributes:
        alpha: of the Beta distribution; 1 draws λ uniformly.
    """

    alpha: float = 1.0
    reads_gradient: ClassVar[bool] = False

    def __call__(self, step: Step, loss: Tensor) -> Batch:
        """The step's images mixed with each other."""
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
        # A Beta draw from two Gamma draws, since torch's own Beta takes no generator.
        gammas = torch._standard_gamma(torch.full((2,), self.alpha), generator=choice)
        return float(gammas[0] / gammas.sum())
