"""Batch-norm re-estimation: statistics that undo what rounding did to each channel."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from dreamquant.networks.channel_statistics import channel_statistics
from dreamquant.networks.probe import batch_norms
from dreamquant.networks.taps import entering, unseen
from dreamquant.quantization.student import Student

_LARGEST_GAIN = 4.0  # and its inverse the least: a channel may be constant on the images


class _Moments:
    """Mean and biased variance per channel of batches of one size, float64."""

    def __init__(self) -> None:
        self.batches = 0
        self.mean = self._squares = torch.zeros((), dtype=torch.float64)

    @property
    def var(self) -> Tensor:
        return (self._squares - self.mean.square()).clamp(min=0)

    def add(self, x: Tensor) -> None:
        mean, var = (value.double() for value in channel_statistics(x))
        self.batches += 1
        self.mean = self.mean.to(mean).lerp(mean, 1 / self.batches)
        self._squares = self._squares.to(mean).lerp(var + mean.square(), 1 / self.batches)


@torch.no_grad()
def match_norms(student: Student, teacher: nn.Module, batches: Iterable[Tensor]) -> None:
    """Let each channel leave a student's batch norms with the teacher's mean and deviation.

    Rounding moves and stretches what channels carry, and the errors add up from layer to layer.
    Both networks see the same images, and each batch norm of the student gets the teacher's stored
    statistics, moved and stretched as its channel was: synthetic images whose statistics are not
    those stored do no harm. Norms are mended as they are executed, so that each sees what those
    before it have mended.

    Of means this is bias correction (Nagel et al., ICCV 2019, section 4.2), measured. Batch-norm
    tuning (Hubara et al., arXiv 2006.10518) takes both from real images; relative ones are ours.

    Args:
        student: a quantized copy of ``teacher``, its ranges set, in eval mode.
        teacher: in eval mode.
        batches: normalised images (B, C, H, W), all of one size.
    """
    by_name = dict(batch_norms(teacher))
    originals = {norm: by_name[name] for name, norm in batch_norms(student.network)}
    wanted = {norm: _Moments() for norm in originals.values()}
    found = {norm: _Moments() for norm in originals}

    def note(norm: _BatchNorm, inputs: tuple[Any, ...]) -> None:
        wanted[norm].add(inputs[0])

    def mend(norm: _BatchNorm, inputs: tuple[Any, ...]) -> None:
        original = originals[norm]
        # The student's modes count what the network reads, of which these means are no part.
        with unseen():
            found[norm].add(inputs[0])
            _mend(norm, original, found[norm], wanted[original])

    for images in batches:
        with entering(originals.values(), note):
            teacher(images)
        with entering(originals, mend):
            student(images)


def _mend(
    norm: _BatchNorm,
    original: _BatchNorm,
    found: _Moments,
    wanted: _Moments,
) -> None:
    stored_mean, stored_var = (
        cast(Tensor, value).double() for value in (original.running_mean, original.running_var)
    )
    eps = original.eps
    gain = ((found.var + eps) / (wanted.var + eps)).sqrt()
    gain = gain.clamp(1 / _LARGEST_GAIN, _LARGEST_GAIN)
    cast(Tensor, norm.running_mean).copy_(found.mean + gain * (stored_mean - wanted.mean))
    var = (stored_var + eps) * gain.square() - eps
    cast(Tensor, norm.running_var).copy_(var.clamp(min=0))
