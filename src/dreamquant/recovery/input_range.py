"""The range of a network's input, where nothing tells the scale of its features."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from dreamquant.networks.outputs import as_one
from dreamquant.quantization.affine import affine_parameters, fake_quantize
from dreamquant.quantization.quantizers import ActivationQuantizer
from dreamquant.recovery.part import Recovery
from dreamquant.recovery.without_images import has_values_of, place_at
from dreamquant.synthesis.procedural import drawn_inputs
from dreamquant.synthesis.source import Images
from dreamquant.synthesis.suited import Suited
from dreamquant.training.bench import Bench
from dreamquant.training.losses import Losses
from dreamquant.training.phase import Phase

_SEED = 9_000_011
_DEVIATIONS = 8  # ends that are tried go up to so many deviations of the largest scale


@dataclass(frozen=True)
class CoverScales(Recovery):
    """Sets the input's range for features whose scale is not known.

    Without batch norm, no stored number tells the scale of features. The network's own biases bound
    it: at a large scale they are small beside the inputs, and where a normalisation follows,
    outputs hardly change when the scale doubles. Inputs are drawn with the deviations 1, 2, 4, ...
    up to this scale. Of the ranges ``[-r, r]``, with ``r`` = 1, 2, 4, ..., the one is set whose
    worst scale is best: the outputs of the teacher, with its input rounded to this range, differ
    least from those without rounding, relative to their variance.

    KWT-1 (91.75 % of 1,200 clips), whose first coefficient goes from -350 to 30: at W8A8, 77.8 %
    with the range of inputs of deviation 1, which ends at 6, and 91.1 % with the range to 64.

    The range stays as it is where the input is an image or its scale is known, and where the
    outputs change with the scale everywhere, or nowhere from deviation 1 on.

    Attributes:
        count: number of drawn inputs.
        saturated: percent of the outputs' variance that is left when the scale doubles, from which
            on the scale no longer matters. Outputs linear in the input keep 75.
        octaves: number of times that the scale doubles at most.
    """

    count: int = 32
    saturated: float = 80.0
    octaves: int = 10

    def phases(self, bench: Bench, images: Images | None) -> Iterator[Phase]:
        """One step for features of unknown scale, otherwise nothing."""
        if bench.input.features and not bench.input.centre:
            yield _Covering(bench, self)


class _Covering(Phase):
    name = "setting the input's range for several scales"
    total = 1

    def __init__(self, bench: Bench, part: CoverScales) -> None:
        super().__init__()
        self.bench, self.part = bench, part

    @torch.no_grad()
    def step(self) -> Losses:
        """Find the range and set it."""
        # The seed is fixed: all processes and all runs get the same range.
        random = torch.Generator().manual_seed(_SEED)
        inputs = drawn_inputs(Suited(), self.part.count, self.bench.input, random)
        inputs = inputs.to(self.bench.device)
        quantizers = self._reading(inputs)
        outputs = self._outputs(inputs)
        if quantizers and len(outputs) > 1:
            end = self._end(inputs, outputs, quantizers[0])
            for quantizer in quantizers:
                place_at(quantizer, -end, end)
            self.finding = {"input_range": float(end), "largest_deviation": max(outputs)}
        return {}

    def _reading(self, inputs: Tensor) -> list[ActivationQuantizer]:
        """The student's quantizers that read the network's input."""
        found: list[ActivationQuantizer] = []

        def look(quantizer: ActivationQuantizer, given: tuple[Tensor, ...]) -> None:
            if has_values_of(given[0], inputs):
                found.append(quantizer)

        student = self.bench.student.eval()
        student.observe(False)
        handles = [
            quantizer.register_forward_pre_hook(look)
            for quantizer in student.activation_quantizers().values()
        ]
        try:
            student(inputs)
        finally:
            for handle in handles:
                handle.remove()
        return found

    def _outputs(self, inputs: Tensor) -> dict[float, Tensor]:
        """The teacher's outputs by scale, up to the one from which on the scale does not matter;
        empty if it always matters.
        """
        scales = [2.0**octave for octave in range(self.part.octaves + 1)]
        outputs = {1.0: self._teacher(inputs)}
        for scale, twice in pairwise(scales):
            outputs[twice] = self._teacher(twice * inputs)
            if unchanged(outputs[twice], outputs[scale]) >= self.part.saturated:
                del outputs[twice]
                return outputs
        return {}

    def _end(
        self, inputs: Tensor, outputs: dict[float, Tensor], quantizer: ActivationQuantizer
    ) -> Tensor:
        """The end of the range whose worst scale is best."""

        def worst(end: Tensor) -> float:
            scale, zero_point = affine_parameters(-end, end, quantizer.grid)

            def rounded(x: Tensor) -> Tensor:
                return fake_quantize(x, scale, zero_point, quantizer.grid, clipped_gradient=False)

            return min(
                unchanged(wanted, self._teacher(rounded(deviation * inputs)))
                for deviation, wanted in outputs.items()
            )

        largest = _DEVIATIONS * max(outputs)
        ends = [2.0**octave for octave in range(int(largest).bit_length())]
        return max((inputs.new_tensor(end) for end in ends), key=worst)

    def _teacher(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = as_one(self.bench.teacher(inputs))
        return outputs


def unchanged(wanted: Tensor, given: Tensor) -> float:
    """The percentage of the variance of outputs (B, *) that is left of them in others.

    It is 100 times one less the squared difference over the variance; where the outputs are the
    same for all inputs, 0.
    """
    wanted, given = wanted.flatten(1).double(), given.flatten(1).double()
    variance = (wanted - wanted.mean(0)).square().sum()
    return float(100 - 100 * (given - wanted).square().sum() / variance) if variance > 0 else 0.0
