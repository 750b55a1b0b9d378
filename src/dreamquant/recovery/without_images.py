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

# Up to this many bits, a range ends at the largest value seen on noise.
_CAPPED = 5
_NORMALISED = 5.0  # deviation of pixels, or its inverse, up to which they count as normalised
_SIGNED = 1.25  # divisor of the deviations of signed tensors
# Where more values than this are the largest, the activation cuts off there, as ReLU6 does. Of
# MobileNetV1 at W8A8, ranges beyond 6 cost 2 points (200 images).
_CUT = 100
_SAMPLED = 4096  # values of a tensor that are looked for in the image


@dataclass(frozen=True)
class RoundBySquant(Recovery):
    """Rounds weights so that errors cancel within kernels and within output channels.

    See :func:`dreamquant.recovery.squant.squant`. Scales cover the smallest and the largest weight
    of each channel.

    Attributes:
        sums: E rounds to nearest; EK makes the errors of kernels cancel, EC those of channels, EKC
            both.
    """

    weights_by: ClassVar[str] = "min-max, SQuant's rounding"

    sums: Sums = "EKC"

    def phases(self, bench: Bench, images: Images | None) -> Iterator[Phase]:
        """One phase with a step for each layer."""
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
    """Round a student's weight in place, and fix its present ranges."""
    latent, quantizer = weight
    scale, zero_point = quantizer.parameters_of(latent)
    exact = quantizer.kernels(latent / scale + zero_point)
    kernels = exact.flatten(2) if exact.dim() > 2 else exact.unsqueeze(2)
    codes = squant(kernels, quantizer.grid, sums).view_as(exact)
    quantizer.hold(*quantizer.in_force(latent))
    latent.copy_((quantizer.from_kernels(codes, latent) - zero_point) * scale)


@dataclass(frozen=True)
class RangesFromNoise(Recovery):
    """Sets activation ranges to n standard deviations, measured in the quantized network on noise.

    As in SQuant's released code, the noise is uniform in [0, 1) and enters the network without
    normalisation. Where the input is not pixels, the noise is normal. For a tensor without negative
    values, the deviation is that of its positive values. At few bits, and where an activation cuts
    off, a range ends at the largest value seen. The input of the network keeps the range of pixels,
    which is known, also where it is padded.

    Attributes:
        deviations: n, at up to 4, up to 6 and more bits.
        count: number of noise images.
        batch: images in one forward pass.
    """

    ranges_by: ClassVar[str] = "deviations of noise"

    deviations: tuple[float, float, float] = (12.0, 14.0, 25.0)
    count: int = 256
    batch: int = 64

    def phases(self, bench: Bench, images: Images | None) -> Iterator[Phase]:
        """One phase with a step for each activation range."""

        def place(met: RangeMet | LayerMet) -> None:
            assert isinstance(met, RangeMet)
            if is_pixels and has_values_of(met.values[0], noise()[0]):
                low, high = ends_of_pixels(bench.input)
                least, most = met.values[0].aminmax()  # padding may lie beyond
                place_at(met.quantizer, torch.minimum(low, least), torch.maximum(high, most))
            else:
                self._place(met.quantizer, met.values)

        @cache
        def noise() -> list[Tensor]:
            random = torch.Generator(bench.device).manual_seed(bench.seed)
            shape = (self.count, *bench.input.shape)
            draw = torch.rand if is_pixels else torch.randn  # other inputs may be negative
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
        most = seen.abs().max()
        if quantizer.bits <= _CAPPED or (seen.abs() == most).sum() > _CUT:
            reach = torch.minimum(reach, most)
        place_at(quantizer, -reach if signed else torch.zeros_like(reach), reach)


def _unit(spec: InputSpec) -> float:
    """What a network takes where another takes 1: of pixels that are not normalised more."""
    if spec.features:
        return 1.0
    deviation = float(pixel_moments(spec).deviation.mean())
    return 1.0 if 1 / _NORMALISED < deviation < _NORMALISED else deviation


def place_at(quantizer: ActivationQuantizer, low: Tensor, high: Tensor) -> None:
    """Set a quantizer's range to ``low`` … ``high``, two scalars."""
    quantizer.place(*affine_parameters(low, high, quantizer.grid))


def ends_of_pixels(spec: InputSpec) -> tuple[Tensor, Tensor]:
    """The smallest and the largest value of a network's input, two scalars."""
    _, _, low, high = pixel_moments(spec)
    return low.min(), high.max()


def has_values_of(seen: Tensor, image: Tensor) -> bool:
    """Whether a tensor is the image, or its values moved: padded, cut out or reordered.

    A sample decides. Zeros tell nothing, since padding and ReLUs give them as well, and few values
    that are computed are among those of the image.
    """
    first = seen[0].flatten()
    sample = first[:: max(1, len(first) // _SAMPLED)]
    sample = sample[sample != 0]
    return len(sample) > 0 and bool(torch.isin(sample, image[0]).float().mean() > 0.5)


def _deviation_of_positive(values: Tensor) -> Tensor:
    positive = values[values > 0]
    return positive.std() if len(positive) > 1 else values.new_zeros(())
