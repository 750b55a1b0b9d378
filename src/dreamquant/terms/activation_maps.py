"""The student's attention equals the teacher's: class activation maps of SynQ (ICLR 2025)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from dreamquant.errors import MethodError
from dreamquant.networks.relu_maps import LastMap
from dreamquant.networks.taps import Output
from dreamquant.terms.contract import Step, Term, View


@dataclass(frozen=True)
class MapOfOutput(LastMap):
    """The last feature map in its own precision, so that the output can be differentiated by it."""

    def value(self, tensors: Sequence[Tensor]) -> Tensor:
        """The map with which the network continues."""
        return tensors[0]


def class_activation(view: View, labels: Tensor) -> Tensor:
    """Grad-CAM (B, h, w) of labels (B,): ``ReLU(Σ_k α_k A_k)``.

    A is the last feature map. α_k is the mean over positions of the derivative of the class's logit
    with respect to channel k of A. Gradients go through A, and α counts as a constant.

    Raises:
        MethodError: the output was not computed from the map that was read.
    """
    activation = view[MapOfOutput()]
    score = view.output.gather(1, labels[:, None]).sum()
    (slope,) = torch.autograd.grad(score, [activation], retain_graph=True, allow_unused=True)
    if slope is None:
        raise MethodError(
            "class activation maps need the gradient inside a network, which a compiled one does "
            "not give",
            where="--compile",
            remedy="leave --compile out, or choose a method without CamAlignment",
        )
    weights = slope.float().mean((2, 3), keepdim=True)
    return F.relu((weights * activation.float()).sum(1))


@dataclass(frozen=True)
class CamAlignment(Term):
    """``E ||S_q - S_p||²`` of the class activation maps of the target label."""

    formula = "E ||S_q - S_p||², S = ReLU(Σ_k α_k A_k), α_k = mean of ∂z_y/∂A_k"
    teacher_taps = (MapOfOutput(),)
    student_taps = (Output(), MapOfOutput())

    def __call__(self, step: Step) -> Tensor:
        """The squared gap, summed over positions, a scalar >= 0."""
        targets = step.targets
        labels = targets if targets.dim() == 1 else targets.argmax(1)
        wanted = class_activation(self._teacher(step), labels).detach()
        gap = class_activation(step.student, labels) - wanted
        return gap.square().sum((1, 2)).mean()

    def _teacher(self, step: Step) -> View:
        # On a pool's images the teacher runs without a graph, because nothing in it learns.
        if step.images.requires_grad:
            return step.teacher
        return step.teacher.on(step.images.detach().requires_grad_())
