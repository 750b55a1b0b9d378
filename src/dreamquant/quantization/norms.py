"""Batch norms of a student, with statistics that make up for what rounding did to its channels."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn

from dreamquant.networks.probe import batch_norms
from dreamquant.networks.taps import channel_statistics
from dreamquant.quantization.layers import Student

_LARGEST_GAIN = 4.0  # and its inverse the least: a channel may lie still on the images there are


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
    originals, copies = dict(batch_norms(teacher)), dict(batch_norms(student.network))
    wanted = {name: _Moments() for name in originals}
    found = {name: _Moments() for name in originals}

    def mend(name: str, x: Tensor) -> None:
        found[name].add(x)
        _mend(copies[name], originals[name], found[name], wanted[name])

    for images in batches:
        with _entering(originals, lambda name, x: wanted[name].add(x)):
            teacher(images)
        with _entering(copies, mend):
            student(images)


def _mend(
    norm: nn.modules.batchnorm._BatchNorm,
    original: nn.modules.batchnorm._BatchNorm,
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


@contextmanager
def _entering(
    norms: Mapping[str, nn.Module], look: Callable[[str, Tensor], None]
) -> Iterator[None]:
    """Look at what enters each norm, before it does."""

    def watch(name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        return lambda _, inputs: look(name, inputs[0])

    handles = [norm.register_forward_pre_hook(watch(name)) for name, norm in norms.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
