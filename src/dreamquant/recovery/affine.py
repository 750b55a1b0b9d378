"""Closed-form rescaling of channels, layer by layer: QwT-v2 (Tang et al., arXiv 2505.20932)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, cast

import torch
from torch import Tensor

from dreamquant.recovery.branches import Branch
from dreamquant.recovery.layerwise import put_bias
from dreamquant.recovery.part import Recovery
from dreamquant.recovery.stepwise import Walked, branches_of, drawn
from dreamquant.recovery.unfold import Layer, weight_from_rows, weight_rows
from dreamquant.recovery.walk import LayerMet, RangeMet
from dreamquant.synthesis.source import Images
from dreamquant.training.bench import Bench
from dreamquant.training.phase import Phase

_LIMITS = (0.5, 2.0)  # limits of a slope: statistics of few images must not switch a channel off


class Line(NamedTuple):
    """The map ``slope * y + offset`` of each channel; both are (F,)."""

    slope: Tensor
    offset: Tensor


def fitted(given: Tensor, wanted: Tensor, ridge: float) -> Line:
    """The least-squares line of each channel, from ``given`` to ``wanted``.

    ``slope = (Cov + ridge Var) / (Var + ridge Var)``, ``offset = E[wanted] - slope E[given]``.

    Args:
        given: (F, n), float64.
        wanted: (F, n).
        ridge: strength of the pull toward a slope of 1, as a fraction of the variance of ``given``.
    """
    inner = given - given.mean(1, keepdim=True)
    var = inner.square().mean(1)
    covariance = (inner * wanted).mean(1)
    slope = (covariance + ridge * var) / ((1 + ridge) * var)
    slope = torch.where(var > 0, slope, 1.0).clamp(*_LIMITS)
    return Line(slope, wanted.mean(1) - slope * given.mean(1))


@dataclass(frozen=True)
class RescaleChannels(Recovery):
    """Gives each layer's channels the slope and offset that bring them closest to the teacher's.

    The slope multiplies the scale of a channel's weights, and their codes stay the same. The offset
    goes into the bias, or into the mean of the batch norm after the layer, so that the network
    needs no new operation. A layer that can hold no offset is left unchanged. Layers are treated in
    the order executed, each on the outputs of the layers before it, which are already rescaled.

    Attributes:
        count: number of images.
        batch: images in one forward pass.
        ridge: see :func:`fitted`.
    """

    weights_by: ClassVar[str] = "least error, channels rescaled by least squares"

    count: int = 256
    batch: int = 64
    ridge: float = 0.05

    def phases(self, bench: Bench, images: Images | None) -> Iterator[Phase]:
        """One phase with a step for each layer, and for each activation range, which it leaves
        unchanged.
        """
        branches = branches_of(bench)

        def act(met: RangeMet | LayerMet) -> None:
            if isinstance(met, LayerMet):
                rescale(met, bench, branches[met.name], self.ridge)

        yield Walked(
            "rescaling channels",
            bench,
            lambda: drawn(bench, images, self.count, self.batch, type(self).__name__),
            branches,
            act,
        )


@torch.no_grad()
def rescale(met: LayerMet, bench: Bench, branch: Branch, ridge: float) -> None:
    """Give a layer of the student the slopes and offsets that fit best."""
    network, weight = bench.student.network, bench.student.quantized_weight(met.name)
    mended = network.get_submodule(met.name)
    own, (latent, quantizer) = mended.bias, weight
    if own is None and branch.norm is None:
        return
    layer = cast(Layer, bench.prepared.get_submodule(met.name))
    bare = 0 if own is None else cast(Tensor, own)
    given = torch.cat([_channels(mended.forward(x), layer) for x in met.inputs], 1)
    wanted = torch.cat([_channels(y, layer) for y in met.wanted], 1)
    slope, offset = fitted(given, wanted, ridge)
    quantizer.fix(latent)
    if quantizer.start.numel() == len(slope):
        factor, rows = slope.float(), weight_rows(latent, layer)
        latent.copy_(weight_from_rows(rows * factor.view(*rows.shape[:2], 1), layer))
        quantizer.hold(quantizer.scale * factor, quantizer.zero_point)
        put_bias(network, met.name, branch, factor * bare + offset.float())
        return
    # The groups of a transposed convolution share scales: only the offsets can be chosen.
    put_bias(network, met.name, branch, bare + (wanted - given).mean(1).float())


def _channels(y: Tensor, layer: Layer) -> Tensor:
    """The values of each output channel: (F, n), float64."""
    last = isinstance(layer, torch.nn.Linear)
    return (y if last else y.movedim(1, -1)).flatten(0, -2).double().T
