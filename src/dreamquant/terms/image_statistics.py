"""Statistics of each image by itself (ZeroQ, Cai et al., CVPR 2020)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dreamquant.networks.channel_statistics import image_statistics
from dreamquant.networks.norm_inputs import BatchNormInputs
from dreamquant.terms.contract import Step, Term


@dataclass(frozen=True)
class ImageStatistics(Term):
    """Squared gap between each image's statistics and the stored ones, means and deviations.

    ``Σ_l 1/B Σ_b [ ||m_l(x_b) - μ_l||² + ||s_l(x_b) - σ_l||² ]``, summed over channels and layers
    as the released code does; ``m`` and ``s`` are taken over space at each batch norm's input.

    Attributes:
        epsilon: added to variances before the root.
    """

    epsilon: float = 1e-6
    formula = "Σ_l 1/B Σ_b [ ||m_l(x_b) - μ_l||² + ||s_l(x_b) - σ_l||² ]"
    teacher_taps = (BatchNormInputs(per_image=True),)
    any_output = True

    def __call__(self, step: Step) -> Tensor:
        """The gap, a scalar >= 0."""
        s = step.teacher[BatchNormInputs(per_image=True)]
        deviation, stored = (s.var + self.epsilon).sqrt(), (s.stored_var + self.epsilon).sqrt()
        gap = (s.mean - s.stored_mean).square() + (deviation - stored).square()
        return gap.sum(1).mean()


@dataclass(frozen=True)
class InputStatistics(Term):
    """Squared gap of each image's own channels to mean 0 and deviation 1.

    ``1/B Σ_b [ ||m(x_b)||² + ||s(x_b) - 1||² ]``: what normalised training images have on average.
    """

    formula = "1/B Σ_b [ ||m(x_b)||² + ||s(x_b) - 1||² ]"
    any_output = True

    def __call__(self, step: Step) -> Tensor:
        """The gap, a scalar >= 0."""
        mean, var = image_statistics(step.images)
        deviation = torch.sqrt(var + 1e-6)
        return (mean.square() + (deviation - 1).square()).sum(1).mean()
