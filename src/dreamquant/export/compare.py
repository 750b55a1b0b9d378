"""Decides whether codes and logits of an exported network equal those of its student."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor, nn

from dreamquant.errors import ExportError
from dreamquant.export.runtime import Array
from dreamquant.networks.outputs import tensors_of
from dreamquant.quantization.logarithmic import LogQuantizer
from dreamquant.quantization.quantizers import ActivationQuantizer
from dreamquant.quantization.student import Student

_FLIPPED = 0.001  # fraction of a layer's codes that rounding may be expected to change, by one
# What is expected of values that lie anywhere: sums of few small integers may lie closer to where
# codes change, and more of them differ then.
_MOST = 2 * _FLIPPED
_FEW = 2  # this number may always differ, because a layer may have only a few hundred codes
# Relative to a tensor's largest value: the effect of the order of float32 sums. Means of quantized
# values often lie exactly between two codes of the same scale.
_TIE = 3e-6
_AGREEMENT = 0.995


class NotTheStudentError(ExportError):
    """The outputs of an exported network differ from those of its student.

    Args:
        reason: a description of the difference.
        evidence: data for a report: plain JSON values without weights.
    """

    def __init__(self, reason: str, evidence: dict[str, Any] | None = None) -> None:
        self.reason, self.evidence = reason, evidence
        super().__init__(
            f"the exported network differs from the student: {reason}",
            where="verification",
            remedy="the file was not written; please report this with the network",
        )


class Difference(NamedTuple):
    """The differences between a layer's codes and the student's codes.

    Attributes:
        name: name of the tensor with the codes.
        flips: number of codes that differ.
        size: number of codes compared.
        largest: largest difference.
        ties: number of differing codes whose value lies exactly between two codes.
    """

    name: str
    flips: int
    size: int
    largest: int
    ties: int

    @property
    def fraction(self) -> float:
        """The fraction of codes that differ."""
        return self.flips / self.size

    @property
    def tolerable(self) -> bool:
        """Whether rounding explains the differences."""
        return self.largest <= 1 and self.flips - self.ties <= _MOST * self.size + _FEW

    def __str__(self) -> str:
        return f"{self.flips} of {self.size} codes differ, by up to {self.largest}, at {self.name}"


class Recorded(NamedTuple):
    """Codes and outputs of a student for some images.

    Attributes:
        codes: codes (uint8) of each call of an activation quantizer, in the order executed.
        tied: for each code, whether its value lies exactly between two codes.
        outputs: outputs, (B, ...) each.
    """

    codes: list[Array]
    tied: list[Array]
    outputs: tuple[Tensor, ...]


def compare_codes(found: Array, wanted: Array, tied: Array, name: str) -> Difference:
    """Compare two tensors of codes (uint8, same shape); ``tied`` marks values between two codes."""
    difference = np.abs(found.astype(np.int16) - wanted)
    flips, ties = (int(np.count_nonzero(each)) for each in (difference, difference * tied))
    return Difference(name, flips, difference.size, int(difference.max(initial=0)), ties)


class Outputs(NamedTuple):
    """Outputs of a student for some images.

    Attributes:
        names: names of the outputs.
        values: their values, (B, ...) each.
        sensitivity: change of each output when codes flip, see :func:`sensitivity_of`.
        confident: (B,), whether the margin of top-1 is well above the sensitivity; ``None`` if
            outputs are not logits.
    """

    names: tuple[str, ...]
    values: tuple[Tensor, ...]
    sensitivity: tuple[float, ...]
    confident: Tensor | None


def require_equal_outputs(
    names: Sequence[str], found: Sequence[Tensor], wanted: Sequence[Tensor]
) -> None:
    """Compare outputs for equal inputs of the last layer.

    Raises:
        NotTheStudentError: they differ by more than rounding explains.
    """
    for name, ours, aim in zip(names, found, wanted, strict=True):
        deviation = float((ours - aim).abs().max())
        if deviation > _FLIPPED * float(aim.abs().max()):
            raise NotTheStudentError(
                f"{name} deviate by {deviation:.3g} although the last layer's input is equal"
            )


def compare_outputs(found: Sequence[Tensor], wanted: Outputs, runtime: str) -> float | None:
    """Compare outputs and return the top-1 agreement on confident inputs; ``None`` without any.

    Args:
        found: outputs of the file.
        wanted: outputs of the student.
        runtime: the runtime that ran the file.

    Raises:
        NotTheStudentError: they differ by more than flipped codes explain.
    """
    for name, ours, aim, sensitivity in zip(
        wanted.names, found, wanted.values, wanted.sensitivity, strict=True
    ):
        deviation = deviation_of(ours, aim)
        rounding = 1e-4 * float(aim.abs().max())
        if not deviation <= 2 * sensitivity + rounding:
            raise NotTheStudentError(
                f"in {runtime} {name} deviate by {deviation:.3g}, but flipped codes change the "
                f"student's by {sensitivity:.3g} only"
            )
    if wanted.confident is None:
        return None
    return _same_top1(found[0], wanted.values[0], wanted.confident, runtime)


def deviation_of(found: Tensor, wanted: Tensor) -> float:
    """The median over images of the largest deviation of an image (B, ...)."""
    return float((found - wanted).abs().reshape(len(wanted), -1).amax(1).median())


def _same_top1(found: Tensor, wanted: Tensor, confident: Tensor, runtime: str) -> float | None:
    if not confident.any():
        return None
    same = found.argmax(1) == wanted.argmax(1)
    agreement = float(same[confident].float().mean())
    if agreement < _AGREEMENT:
        raise NotTheStudentError(
            f"in {runtime} top-1 agrees on only {agreement:.1%} of confident inputs"
        )
    return agreement


def sensitivity_of(
    student: Student, images: Tensor, outputs: Sequence[Tensor]
) -> tuple[float, ...]:
    """The typical change of each output when every quantizer flips the tolerated number of codes.

    At least one code of each image is flipped, because 0.1 % of a few codes is less than one.
    """
    generator = torch.Generator().manual_seed(1)

    def flip(quantizer: nn.Module, _: Any, result: Tensor) -> Tensor:
        chance = torch.rand((len(result), result[0].numel()), generator=generator)
        least = chance.amin(1, keepdim=True).clamp(min=_FLIPPED / 2)
        steps = (chance <= least).float() - (chance > 1 - _FLIPPED / 2).float()
        return cast(ActivationQuantizer, quantizer).shifted(result, steps.view_as(result))

    with torch.no_grad(), hooked(student, flip):
        moved = tensors_of(student(images))
    return tuple(deviation_of(ours, aim) for ours, aim in zip(moved, outputs, strict=True))


def margins(logits: Tensor) -> Tensor:
    """Largest minus second largest logit, (B,), of logits (B, classes)."""
    best = logits.topk(2, dim=1).values
    return best[:, 0] - best[:, 1]


@torch.no_grad()
def record(student: Student, images: Tensor) -> Recorded:
    """Codes and outputs of a student for images (B, ...)."""
    codes: list[Array] = []
    tied: list[Array] = []

    def keep(quantizer: nn.Module, inputs: tuple[Tensor, ...], _: Tensor) -> None:
        of, (x,) = cast(ActivationQuantizer, quantizer).codes, inputs
        # Softmax computes small values as precisely as large ones, relative to themselves.
        nearly = _TIE * (x if isinstance(quantizer, LogQuantizer) else x.abs().max())
        codes.append(of(x).to(torch.uint8).numpy())
        tied.append((of(x - nearly) != of(x + nearly)).numpy())

    with hooked(student, keep):
        outputs = tensors_of(student(images))
    return Recorded(codes, tied, outputs)


@contextmanager
def hooked(student: Student, hook: Any) -> Iterator[None]:
    """Register a forward hook on every activation quantizer inside the block."""
    quantizers = student.activation_quantizers().values()
    handles = [quantizer.register_forward_hook(hook) for quantizer in quantizers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def smallest(differences: Sequence[Difference]) -> Difference:
    """The difference of the layer with the fewest codes."""
    return min(differences, key=lambda difference: difference.size)
