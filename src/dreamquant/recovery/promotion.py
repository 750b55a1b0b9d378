"""Harder images: HAST's promotion of sample difficulty (Li et al., CVPR 2023)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from dreamquant.training.batch import Batch
from dreamquant.training.step import Step


@dataclass(frozen=True)
class Promotion:
    """``x + ε sign(∇_x L)``: one step along the gradient of the student's loss.

    Attributes:
        step: ε, in units of the normalised image.
    """

    step: float = 0.01
    reads_gradient: ClassVar[bool] = True

    def __call__(self, step: Step, loss: Tensor) -> Batch:
        """The images of the step, each moved by one such step."""
        (gradient,) = torch.autograd.grad(loss, [step.images], retain_graph=True)
        images = step.images.detach() + self.step * gradient.sign()
        return Batch(images, step.targets, step.latent, step.batch.conditions)
