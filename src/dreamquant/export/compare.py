"""When codes and logits of an exported network count as those of its student."""

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
from dreamquant.quantization.quantizers import ActivationQuantizer
from dreamquant.quantization.student import Student

_FLIPPED = 0.001  # the largest share of a layer's codes that may differ, each by one
_FEW = 2  # so many may differ anyway: a layer of a few hundred codes knows no such small share
# Of a tensor's largest value: what the order of a float32 sum decides. Means of quantized values
# often lie right between two codes of the same scale.
_TIE = 3e-6
_AGREEMENT = 0.995


class NotTheStudentError(ExportError):
    """An exported network computes something else than its student.

    Args:
        reason: what differs.
        evidence: of it, to report: plain JSON values without weights.
    """

    def __init__(self, reason: str, evidence: dict[str, Any] | None = None) -> None:
        self.reason, self.evidence = reason, evidence
        super().__init__(
            f"the exported network is not the student: {reason}",
            where="verification",
            remedy="this file was not written; please report this with the network",
        )


class Difference(NamedTuple):
    """How a layer's codes differ from the student's.

    Attributes:
        name: of the tensor that holds them.
        flips: codes that differ.
        size: codes compared.
        largest: of the differences.
        ties: of the codes that differ, those whose value lies between two codes.
    """

    name: str
    flips: int
    size: int
    largest: int
    ties: int

    @property
    def fraction(self) -> float:
        """Of the codes, those that differ."""
        return self.flips / self.size

    @property
    def tolerable(self) -> bool:
        """Whether rounding explains it."""
        return self.largest <= 1 and self.flips - self.ties <= _FLIPPED * self.size + _FEW

    def __str__(self) -> str:
        return f"{self.flips} of {self.size} codes differ, by up to {self.largest}, at {self.name}"


class Recorded(NamedTuple):
    """What a student does to some images.

    Attributes:
        codes: uint8, at each call of an activation quantizer in the order executed.
        tied: of each code, whether its value lies between two codes.
        outputs: (B, ...) each.
    """

    codes: list[Array]
    tied: list[Array]
    outputs: tuple[Tensor, ...]


def compare_codes(found: Array, wanted: Array, tied: Array, name: str) -> Difference:
    """Two tensors of codes (uint8, of one shape), and where they lie between two values."""
    difference = np.abs(found.astype(np.int16) - wanted)
    flips, ties = (int(np.count_nonzero(each)) for each in (difference, difference * tied))
    return Difference(name, flips, difference.size, int(difference.max(initial=0)), ties)


class Outputs(NamedTuple):
    """What the student gives for some images.

    Attributes:
        names: of its outputs.
        values: (B, ...) each.
        sensitivity: of each, how far it moves when codes flip, see :func:`sensitivity_of`.
        confident: (B,), of logits, whether top-1 stands well above the sensitivity; ``None`` of
            anything else.
    """

    names: tuple[str, ...]
    values: tuple[Tensor, ...]
    sensitivity: tuple[float, ...]
    confident: Tensor | None


def require_equal_outputs(
    names: Sequence[str], found: Sequence[Tensor], wanted: Sequence[Tensor]
) -> None:
    """Outputs where the last layer's input is equal.

    Raises:
        NotTheStudentError: they differ by more than rounding does.
    """
    for name, ours, aim in zip(names, found, wanted, strict=True):
        deviation = float((ours - aim).abs().max())
        if deviation > _FLIPPED * float(aim.abs().max()):
            raise NotTheStudentError(
                f"{name} deviate by {deviation:.3g} though the last layer's input is equal"
            )


def compare_outputs(found: Sequence[Tensor], wanted: Outputs, runtime: str) -> float | None:
    """Agreement of top-1 on confident inputs; ``None`` if no input is confident.

    Args:
        found: outputs of the file.
        wanted: of the student.
        runtime: that ran the file.

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
                f"in {runtime} {name} deviate by {deviation:.3g}, where flipped codes move the "
                f"student's own by {sensitivity:.3g}"
            )
    if wanted.confident is None:
        return None
    return _same_top1(found[0], wanted.values[0], wanted.confident, runtime)


def deviation_of(found: Tensor, wanted: Tensor) -> float:
    """The largest deviation of an image (B, ...) in the middle of all images."""
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
    """How far each output typically moves when each quantizer flips as many codes as it may.

    Of each image it flips at least one: 0.1 % of few codes is less than one, and yet one may flip.
    """
    generator = torch.Generator().manual_seed(1)

    def flip(quantizer: nn.Module, _: Any, result: Tensor) -> Tensor:
        chance = torch.rand((len(result), result[0].numel()), generator=generator)
        least = chance.amin(1, keepdim=True).clamp(min=_FLIPPED / 2)
        steps = (chance <= least).float() - (chance > 1 - _FLIPPED / 2).float()
        # Not with `+`, which the student would take for a sum of its own.
        scale = cast(ActivationQuantizer, quantizer).scale
        return torch.addcmul(result, steps.view_as(result), scale)

    with torch.no_grad(), hooked(student, flip):
        moved = tensors_of(student(images))
    return tuple(deviation_of(ours, aim) for ours, aim in zip(moved, outputs, strict=True))


def margins(logits: Tensor) -> Tensor:
    """By how much the largest of (B, classes) logits exceeds the second, (B,)."""
    best = logits.topk(2, dim=1).values
    return best[:, 0] - best[:, 1]


@torch.no_grad()
def record(student: Student, images: Tensor) -> Recorded:
    """What a student does to images (B, ...)."""
    codes: list[Array] = []
    tied: list[Array] = []

    def keep(quantizer: nn.Module, inputs: tuple[Tensor, ...], _: Tensor) -> None:
        of, (x,) = cast(ActivationQuantizer, quantizer).codes, inputs
        nearly = _TIE * x.abs().max()
        codes.append(of(x).to(torch.uint8).numpy())
        tied.append((of(x - nearly) != of(x + nearly)).numpy())

    with hooked(student, keep):
        outputs = tensors_of(student(images))
    return Recorded(codes, tied, outputs)


@contextmanager
def hooked(student: Student, hook: Any) -> Iterator[None]:
    """Inside, a forward hook hangs at every activation quantizer."""
    quantizers = student.activation_quantizers().values()
    handles = [quantizer.register_forward_hook(hook) for quantizer in quantizers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def smallest(differences: Sequence[Difference]) -> Difference:
    """The one of the fewest codes."""
    return min(differences, key=lambda difference: difference.size)
