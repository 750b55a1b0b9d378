"""Bias correction: subtracts the change that rounding makes to each channel's mean."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from dreamquant.quantization.clips import ChannelClip
from dreamquant.quantization.prepare import FoldedNorm
from dreamquant.recovery.branches import Branch
from dreamquant.recovery.equalize import effect_of
from dreamquant.recovery.layerwise import add_bias, correct_bias
from dreamquant.recovery.links import Link, find_links
from dreamquant.recovery.moments import clipped_normal
from dreamquant.recovery.part import Recovery
from dreamquant.recovery.stepwise import Walked, branches_of, drawn
from dreamquant.recovery.unfold import Layer
from dreamquant.recovery.walk import LayerMet, RangeMet
from dreamquant.synthesis.source import Images
from dreamquant.training.bench import Bench
from dreamquant.training.losses import Losses
from dreamquant.training.phase import Phase


@dataclass(frozen=True)
class CorrectBias(Recovery):
    """Gives each output channel of the student the mean that the channel has in the teacher.

    With images, the means are measured layer by layer on the corrected student. Without images, the
    means of a layer's inputs follow from the batch norm and the activation before it (Nagel et al.,
    ICCV 2019, section 4.2); layers with any other input are left unchanged.

    Attributes:
        count: number of images, where the method has any.
        batch: images in one forward pass.
        positions: number of output positions that are read of each layer, over all images.
    """

    count: int = 256
    batch: int = 64
    positions: int = 16384

    def phases(self, bench: Bench, images: Images | None) -> Iterator[Phase]:
        """One phase, a step for each layer that is corrected."""
        branches = branches_of(bench)
        if images is None:
            yield _Analytic(bench, branches)
            return

        def act(met: RangeMet | LayerMet) -> None:
            if isinstance(met, LayerMet):
                branch = branches[met.name]
                correct_bias(met, bench.student, bench.prepared, branch, self.positions)

        name = type(self).__name__
        yield Walked(
            "correcting biases",
            bench,
            lambda: drawn(bench, images, self.count, self.batch, name),
            branches,
            act,
        )


class _Analytic(Phase):
    name = "correcting biases"

    def __init__(self, bench: Bench, branches: dict[str, Branch]) -> None:
        super().__init__()
        self.bench, self.branches = bench, branches
        found = find_links(bench.prepared, list(branches), bench.example())
        self.links = [link for link in found if link.norm is not None]
        self.total = len(self.links)

    @torch.no_grad()
    def step(self) -> Losses:
        link, bench = self.links[self.done], self.bench
        layer = cast(Layer, bench.prepared.get_submodule(link.second))
        weight = cast(Tensor, bench.student.network.get_submodule(link.second).weight)
        inputs = expected_inputs(bench.prepared, link)
        surplus = effect_of(layer, weight - layer.weight, inputs)
        add_bias(bench.student.network, link.second, self.branches[link.second], -surplus)
        return {}


def expected_inputs(network: nn.Module, link: Link) -> Tensor:
    """Mean of each input channel (F,) of the second layer, from the batch norm before it."""
    assert link.norm is not None
    mean, deviation = known_of(network.get_submodule(link.norm))
    low = 0.0 if link.relu else -math.inf
    high: float | Tensor = math.inf
    if link.clip is not None:
        high = cast(ChannelClip, network.get_submodule(link.clip)).end
    return clipped_normal(mean, deviation, low, high)[0].to(mean.dtype)


def known_of(norm: nn.Module) -> tuple[Tensor, Tensor]:
    """Mean and deviation (F,) of a batch norm's output, also of one that has been folded."""
    if isinstance(norm, FoldedNorm):
        return norm.mean, norm.deviation
    assert isinstance(norm, _BatchNorm)
    if norm.affine:
        return norm.bias, norm.weight.abs()
    mean = cast(Tensor, norm.running_mean)
    return torch.zeros_like(mean), torch.ones_like(mean)
