"""Recovery that needs no images: SQuant's rounding, and ranges from noise."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import ClassVar

import torch
from torch import Tensor

from dreamquant.networks.spec import InputSpec
from dreamquant.quantization.affine import affine_parameters
from dreamquant.quantization.quantizers import ActivationQuantizer
from dreamquant.quantization.student import QuantizedWeight
from dreamquant.recovery.part import Recovery
from dreamquant.recovery.squant import Sums, squant
from dreamquant.recovery.stepwise import Walked
from dreamquant.recovery.walk import LayerMet, RangeMet
from dreamquant.synthesis.procedural import pixel_moments
from dreamquant.synthesis.source import Images
from dreamquant.training.bench import Bench
from dreamquant.training.losses import Losses
from dreamquant.training.phase import Phase

# Bits up to which a range reaches no further than the largest value of the noise.
_CAPPED = 5
_NORMALISED = 5.0  # deviation of pixels, or its inverse, up to which they count as normalised
_SIGNED = 1.25  # what deviations of signed tensors are divided by


@dataclass(frozen=True)
class RoundBySquant(Recovery):
    """Weights rounded such that errors cancel within kernels and within output channels.

    See :func:`dreamquant.recovery.squant.squant`; scales cover each channel's smallest and largest
    weight.

    Attributes:
        sums: E rounds to nearest, EK minds kernels, EC channels, EKC both.
    """

    weights_by: ClassVar[str] = "min-max, SQuant's rounding"

    sums: Sums = "EKC"

    def phases(self, bench: Bench, images: Images | None) -> Iterator[Phase]:
        """One phase, a step for each layer."""
        yield _Squant(bench, self.sums)


class _Squant(Phase):
    name = "rounding weights by SQuant"

    def __init__(self, bench: Bench, sums: Sums) -> None:
        super().__init__()
        self.weights = list(bench.student.quantized_weights().values())
        self.total, self.sums = len(self.weights), sums

    def step(self) -> Losses:
        round_by_squant(self.weights[self.done], self.sums)
        return {}


@torch.no_grad()
def round_by_squant(weight: QuantizedWeight, sums: Sums) -> None:
    """Round a student's weight in place, and hold the ranges that it has."""
    latent, quantizer = weight
    scale, zero_point = quantizer.parameters_of(latent)
    exact = (latent / scale + zero_point).movedim(quantizer.axis, 0)
    kernels = exact.flatten(2) if exact.dim() > 2 else exact.unsqueeze(2)
    codes = squant(kernels, quantizer.grid, sums).view_as(exact).movedim(0, quantizer.axis)
    latent.copy_((codes - zero_point) * scale)
    quantizer.hold(scale.flatten(), zero_point.flatten())


@dataclass(frozen=True)
class RangesFromNoise(Recovery):
    """Activation ranges of so many deviations of what noise becomes in the quantized network.

    As in SQuant's released code: noise is uniform in [0, 1), given to the network as if it were
    normalised; of features that are no pixels it is normal. Where a network takes pixels that are
    not normalised, such as whole numbers up to 255, noise is as large as these. Of a tensor without
    negative values the deviation is that of the positive ones. At few bits a range ends at the
    largest value that was seen. What the network itself reads keeps the range of pixels, which is
    known; noise does not cover it.

    Attributes:
        deviations: at up to 4, up to 6 and more bits.
        count: images of noise.
        batch: of them in one forward pass.
    """

    ranges_by: ClassVar[str] = "deviations of noise"

    deviations: tuple[float, float, float] = (12.0, 14.0, 25.0)
    count: int = 256
    batch: int = 64

    def phases(self, bench: Bench, images: Images | None) -> Iterator[Phase]:
        """One phase, a step for each range."""

        def place(met: RangeMet | LayerMet) -> None:
            assert isinstance(met, RangeMet)
            if is_pixels and met.values[0].equal(noise()[0]):
                place_at(met.quantizer, *ends_of_pixels(bench.input))
            else:
                self._place(met.quantizer, met.values)

        @cache
        def noise() -> list[Tensor]:
            random = torch.Generator(bench.device).manual_seed(bench.seed)
            shape = (self.count, *bench.input.shape)
            draw = torch.rand if is_pixels else torch.randn  # features have either sign
            drawn = draw(shape, generator=random, device=bench.device)
            return list(torch.split(drawn * _unit(bench.input), self.batch))

        is_pixels = not bench.input.features

        yield Walked("setting activation ranges from noise", bench, noise, {}, place)

    @torch.no_grad()
    def _place(self, quantizer: ActivationQuantizer, values: list[Tensor]) -> None:
        seen = torch.cat([x.flatten() for x in values])
        few, middle, many = self.deviations
        factor = few if quantizer.bits <= 4 else middle if quantizer.bits <= 6 else many
        signed = bool(seen.min() < 0)
        spread = seen.std() / _SIGNED if signed else _deviation_of_positive(seen)
        reach = factor * spread
        if quantizer.bits <= _CAPPED:
            reach = torch.minimum(reach, seen.abs().max())
        place_at(quantizer, -reach if signed else torch.zeros_like(reach), reach)


def _unit(spec: InputSpec) -> float:
    """What a network takes where another takes 1: of pixels that are not normalised more."""
    if spec.features:
        return 1.0
    deviation = float(pixel_moments(spec).deviation.mean())
    return 1.0 if 1 / _NORMALISED < deviation < _NORMALISED else deviation


def place_at(quantizer: ActivationQuantizer, low: Tensor, high: Tensor) -> None:
    """Let a quantizer cover a range, two scalars."""
    quantizer.place(*affine_parameters(low, high, quantizer.grid))


def ends_of_pixels(spec: InputSpec) -> tuple[Tensor, Tensor]:
    """The least and the largest value that a network's input can have, two scalars."""
    _, _, low, high = pixel_moments(spec)
    return low.min(), high.max()


def _deviation_of_positive(values: Tensor) -> Tensor:
    positive = values[values > 0]
    return positive.std() if len(positive) > 1 else values.new_zeros(())
