"""Harder images: HAST's promotion of difficulty (Li et al., CVPR 2023)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from dreamquant.training.batch import Batch
from dreamquant.training.step import Step


@dataclass(frozen=True)
class Promotion:
    """``x + ε sign(∇_x L)``: each image one step up the student's loss.

    Attributes:
        step: ε, in units of the normalised image.
    """

    step: float = 0.01
    reads_gradient: ClassVar[bool] = True

    def __call__(self, step: Step, loss: Tensor) -> Batch:
        """The step's images, each a little harder."""
        (gradient,) = torch.autograd.grad(loss, [step.images], retain_graph=True)
        images = step.images.detach() + self.step * gradient.sign()
        return Batch(images, step.targets, step.latent, step.batch.conditions)
