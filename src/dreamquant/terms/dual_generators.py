"""Two different generators, and the student's outputs for masked sound: DQDG (SPL 2024).

Confirmed, from the abstract: two generators with a constraint on the distance of their centres, for
variety within classes; a selector that keeps samples of high quality for fine-tuning; the student
learns from masked samples what the teacher computes from whole ones. The formulas are ours.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from dreamquant.networks.taps import Output
from dreamquant.terms.contract import Step, Term


@dataclass(frozen=True)
class CentreDistance(Term):
    """``E_c[max(m - d_c, 0)]``, d_c the distance between the generators' centres of class c.

    A centre is the mean of the teacher's logits over the images of a class that one generator made,
    minus the part that is the same for all classes. The distance is one minus the cosine similarity
    of two centres. Rows with an even number are the first generator's.

    Attributes:
        margin: m, the distance that is large enough.
    """

    margin: float = 0.3
    formula = "E_c[max(m - d_c, 0)], d_c = 1 - cos of the two generators' centres of class c"

    def __call__(self, step: Step) -> Tensor:
        """The mean distance to the margin over classes that both made, a scalar >= 0."""
        z = step.teacher.output
        hot = F.one_hot(step.targets, z.shape[1]).to(z)
        first, second = (_centres(z[own::2], hot[own::2]) for own in (0, 1))
        distance = 1 - F.cosine_similarity(first, second, dim=1)
        made = (hot[0::2].sum(0) > 0) & (hot[1::2].sum(0) > 0)
        short = F.relu(self.margin - distance)
        return torch.where(made, short, 0).sum() / made.sum().clamp(min=1)


def _centres(logits: Tensor, hot: Tensor) -> Tensor:
    """(classes, classes): a row for each class; zero where there is no image of it."""
    apart = logits - logits.mean(1, keepdim=True)
    return hot.T @ apart / hot.sum(0).clamp(min=1)[:, None]


@dataclass(frozen=True)
class TimeMaskedDistillation(Term):
    """``T² E_s[KL(softmax(z_p(x)/T) || softmax(z_q(m(x))/T))]``: an interval of time is masked.

    m sets consecutive frames, which are rows of the image, to the mean of all its frames: the
    coefficients of a frame differ in scale. The mean E_s is over images whose target has at least a
    certain probability in the teacher.

    Attributes:
        temperature: T.
        fraction: largest fraction of the frames that is masked; 0 masks none.
        least: smallest probability at which an image is selected.
    """

    temperature: float = 20.0
    fraction: float = 0.25
    least: float = 0.5
    formula = "T² E_s[KL(softmax(z_p(x)/T) || softmax(z_q(m(x))/T))], m masks frames, s selects"
    student_taps = (Output(),)

    def __call__(self, step: Step) -> Tensor:
        """The divergence in nats, a scalar >= 0; 0 where no image is selected."""
        t, z = self.temperature, step.teacher.output
        student = step.student.on(self.masked(step.images, step.choice)).output
        log_p, log_q = F.log_softmax(z / t, dim=1), F.log_softmax(student / t, dim=1)
        apart = F.kl_div(log_q, log_p, reduction="none", log_target=True).sum(1)
        own = z.softmax(1).gather(1, step.targets[:, None])[:, 0]
        selected = (own >= self.least).to(apart)
        return t**2 * (selected * apart).sum() / selected.sum().clamp(min=1)

    def masked(self, images: Tensor, choice: torch.Generator) -> Tensor:
        """``images`` (B, C, frames, coefficients) with the same frames of all of them masked."""
        frames = images.shape[-2]
        most = int(self.fraction * frames)
        length, place = torch.rand(2, generator=choice).tolist()
        count = round(length * most)
        first = int(place * (frames - count + 1))
        row = torch.arange(frames, device=images.device)[:, None]
        hidden = (row >= first) & (row < first + count)
        return torch.where(hidden, images.mean(-2, keepdim=True), images)
