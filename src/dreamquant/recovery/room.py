"""Activation ranges with room for larger values than images without data reach."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from dreamquant import distributed
from dreamquant.quantization.logarithmic import LogQuantizer
from dreamquant.quantization.quantizers import ActivationQuantizer
from dreamquant.quantization.student import Student
from dreamquant.recovery.activations import sampled, search_range
from dreamquant.recovery.walk import RangeMet
from dreamquant.recovery.without_images import has_values_of
from dreamquant.training.bench import Bench

_NOISE = 1e-3  # of a tensor's variance: what rounding may add where a range is extended
_LIMIT = 100  # so many values that equal the largest show that an operation cuts off there
_FEW = 2**12  # values that tell most grids from another


@dataclass(frozen=True)
class Ranges:
    """Sets activation ranges to those of least error, and extends them where that costs little.

    Real images excite deep layers more than drawn ones: the last feature map of SqueezeNet 1.1
    reaches 261 on photographs and 80 on procedural images. A range of 8 bits is extended up to
    ``room`` times, as long as rounding adds less than a thousandth of the tensor's variance. The
    image and results of operations that cut off, such as ReLU6, keep their range. A tensor that
    lies on the grid of another quantizer takes it over, so that it is not rounded again.

    At W8A8, without and with room of 2, means of three seeds: SqueezeNet 1.1 (71.0 % of 200
    photographs) has 65.2 and 70.0 %; of the variance of the teacher's outputs on 500 images,
    ResNet-20 of CIFAR-100 keeps 96.6 and 99.7 %, VGG-6 99.4 and 99.9 %.

    Attributes:
        student: whose ranges are set, in the order in which quantizers run.
        image: gives a batch of the images, if the input is an image, otherwise ``None``.
        power: exponent of the error, see :func:`search_range`.
        room: largest factor; 1 for ranges of least error.
    """

    student: Student
    image: Callable[[], Tensor | None]
    power: float
    room: float

    @torch.no_grad()
    def place(self, met: RangeMet) -> None:
        """Set the range of a quantizer that the walk has reached."""
        if isinstance(met.quantizer, LogQuantizer):
            met.quantizer.cover(met.values)
            return
        found = None if self.room == 1 else self._same(met)
        if found is not None:
            met.quantizer.place(found.scale, found.zero_point)
            return
        scale, zero_point = search_range(met.values, met.quantizer.grid, self.power)
        met.quantizer.place(scale * self._factor(met, scale), zero_point)

    def _same(self, met: RangeMet) -> ActivationQuantizer | None:
        """A quantizer on whose grid the values lie."""
        rows = sampled(met.values)
        few = rows[:: max(1, len(rows) // _FEW)]
        candidates = [
            quantizer
            for quantizer in self.student.activation_quantizers().values()
            if quantizer.placed
            and quantizer.grid == met.quantizer.grid
            and not isinstance(quantizer, LogQuantizer)
        ]
        lies = [q.on_grid(few, few) and q.on_grid(rows, rows) for q in candidates]
        beside = distributed.largest(rows.new_tensor([float(not each) for each in lies]))
        return next((q for q, off in zip(candidates, beside, strict=True) if not off), None)

    def _factor(self, met: RangeMet, scale: Tensor) -> Tensor:
        one = torch.ones_like(scale)
        if self.room == 1 or self._is_limited(met):
            return one
        variance = distributed.mean(sampled(met.values).var())
        return ((12 * _NOISE * variance).sqrt() / scale).clamp(one, one * self.room)

    def _is_limited(self, met: RangeMet) -> bool:
        image = self.image()
        if image is not None and has_values_of(met.values[0], image):
            return True
        most = distributed.largest(torch.stack([x.max() for x in met.values]).amax())
        equal = torch.stack([(x == most).sum() for x in met.values]).sum()
        return bool(distributed.largest(equal.to(most)) > _LIMIT)


def ranges_on(
    bench: Bench, batches: Callable[[], list[Tensor]], power: float, room: float
) -> Ranges:
    """Sets the ranges of a bench's student on batches of images, see :class:`Ranges`."""
    is_image = not bench.input.features
    return Ranges(bench.student, lambda: batches()[0] if is_image else None, power, room)
