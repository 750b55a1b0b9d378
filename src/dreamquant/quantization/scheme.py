"""The scheme: number of bits, places of quantizers, and the way that ranges are set."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any, get_args

from dreamquant.errors import SchemeError
from dreamquant.quantization.affine import KERNEL_REACH, safe_reach, unsigned_grid, weight_grid
from dreamquant.quantization.choices import (
    Activations,
    Gradient,
    Granularity,
    Named,
    Placement,
    Ranges,
    Softmax,
    WeightsRange,
)

_NOTATION = re.compile(r"w([0-9]{1,9})a([0-9]{1,9})", re.IGNORECASE)
_LEAST, _MOST = 2, 8


@dataclass(frozen=True)
class Bits:
    """Bits of a layer's weights and of its activations, 2 to 8 each."""

    weight: int
    activation: int

    def __post_init__(self) -> None:
        for bits in (self.weight, self.activation):
            if not _LEAST <= bits <= _MOST:
                raise SchemeError(
                    f"{bits} {'bit is' if bits == 1 else 'bits are'} not supported",
                    where=f"--bits {self}",
                    remedy=f"choose {_LEAST} to {_MOST} bits for weights and for activations",
                )

    def __str__(self) -> str:
        return f"w{self.weight}a{self.activation}"

    @classmethod
    def parse(cls, notation: str) -> Bits:
        """Read ``w4a4`` notation.

        Raises:
            SchemeError: the text is not of that form, or the bits are out of range.
        """
        match = _NOTATION.fullmatch(notation.strip())
        if match is None:
            raise SchemeError(
                f"{notation!r} does not name bits",
                where="--bits",
                remedy="write weights and activations like w4a4 or w8a8",
            )
        return cls(int(match[1]), int(match[2]))


@dataclass(frozen=True)
class Scheme:
    """Everything that decides how a network is put on integers.

    Attributes:
        bits: of every layer not named below.
        placement: ``relu-output`` quantizes what leaves each activation function, a ReLU in the
            GDFQ family of papers (the image and sums before a ReLU stay float); ``layer-input``
            quantizes what enters each convolution and linear layer, as integer hardware does;
            ``operands`` also quantizes both operands of every other matrix product, as in
            attention, what softmax gives it, and inputs of GELU.
        first_last_bits: bits of weights and activations of the first and the last layer executed;
            ``None`` gives them ``bits``. With ``relu-output`` it concerns their weights alone.
        ranges: with ``ema``, activations keep the moving average of their batches' ranges, and
            weights cover their smallest and largest value at any time (min-max); ``learned`` starts
            both where they round with the least squared error and trains the step sizes.
        gradient: through the rounding: ``straight-through`` everywhere, or ``clipped`` to zero
            where a value was clamped. Learned ranges imply ``clipped``.
        momentum: of the moving range.
        overrides: ``(pattern, bits)`` pairs; the last pattern that matches a layer's name wins.
        joins: bits of tensors that sums, concatenations, poolings or several layers read; such a
            tensor is quantized once, and its readers see that. Biases then become whole numbers
            of integer kernels too, so that nothing but the logits need be computed in float.
            ``None`` leaves both in float. It takes placement ``layer-input`` or ``operands``. The
            image, which is stored as well, has at least these bits where the first layer reads it.
        weights_range: ``safe`` keeps weights of 7 and 8 bits, where they meet activations of so
            many bits that kernels for x86 processors without VNNI would saturate, within the range
            in which none does, see :func:`dreamquant.quantization.affine.safe_reach`; ``full``
            uses all codes, for files that run with VNNI or on other processors only.

        activations: which functions ``relu-output`` quantizes the results of: ``all``, or those
            that are a ``relu``, unless one in place is a statement of its own, as in results of
            before the others were found.
        softmax: grid of what softmax gives, with placement ``operands``: ``linear`` as all others,
            or ``log2``, powers of two (Lin et al., FQ-ViT, IJCAI 2022).

        granularity: of activation ranges: one static range a ``tensor``, as integer kernels take
            them, or a range of each ``image-channel``, found anew whenever the network runs, with
            placement ``relu-output`` alone; coverage counts what that costs.

    Weights are per output channel. Biases and batch norm
    stay in float32.
    """

    bits: Bits
    placement: Placement = "relu-output"
    first_last_bits: int | None = None
    ranges: Ranges = "ema"
    gradient: Gradient = "straight-through"
    momentum: float = 0.9
    overrides: tuple[tuple[str, Bits], ...] = ()
    joins: int | None = None
    weights_range: WeightsRange = "safe"
    activations: Activations = "all"
    softmax: Softmax = "linear"
    granularity: Granularity = "tensor"

    def __post_init__(self) -> None:
        for option, value, choices in (
            ("--placement", self.placement, get_args(Placement)),
            ("--ranges", self.ranges, get_args(Ranges)),
            ("--gradient", self.gradient, get_args(Gradient)),
            ("--weights-range", self.weights_range, get_args(WeightsRange)),
            ("activations", self.activations, get_args(Activations)),
            ("softmax", self.softmax, get_args(Softmax)),
            ("granularity", self.granularity, get_args(Granularity)),
        ):
            if value not in choices:
                raise SchemeError(
                    f"{value!r} is not a choice",
                    where=option,
                    remedy=f"choose {' or '.join(choices)}",
                )
        _require_bits(self.first_last_bits, "--first-last")
        _require_bits(self.joins, "--elementwise")
        if self.softmax == "log2" and self.placement != "operands":
            raise SchemeError(
                "only placement operands quantizes the output of softmax",
                where="--softmax",
                remedy="use --placement operands",
            )
        if self.granularity != "tensor" and self.placement != "relu-output":
            raise SchemeError(
                "ranges of each image and channel are no input of an integer kernel",
                where="--scheme",
                remedy="use --scheme paper, or a method whose ranges are static",
            )
        if self.joins is not None and self.placement == "relu-output":
            raise SchemeError(
                "what sums, concatenations and poolings read is stored between layers whose "
                "inputs are quantized",
                where="--elementwise",
                remedy="add --placement layer-input",
            )

    def bits_of(self, layer: str, *, first: bool, last: bool) -> Bits:
        """Bits of the layer named ``layer``, which may be the first or the last executed."""
        matching = [bits for pattern, bits in self.overrides if fnmatchcase(layer, pattern)]
        if matching:
            return matching[-1]
        if (first or last) and self.first_last_bits is not None:
            return Bits(self.first_last_bits, self.first_last_bits)
        if first and self.joins is not None:
            # Few bits for the image cost more accuracy than for all other activations.
            return replace(self.bits, activation=max(self.bits.activation, self.joins))
        return self.bits

    def weights_reach(self, bits: Bits) -> int:
        """How far weights may lie from their zero-point, in a layer of these bits."""
        if self.weights_range == "full":
            return KERNEL_REACH
        own = self.placement != "relu-output"
        meets = bits.activation if own else self.bits.activation
        return safe_reach(unsigned_grid(meets).qmax)

    def narrowed_bits(self) -> tuple[int, ...]:
        """Bits of the weights that have another grid than they would with the full range."""
        ends = self.first_last_bits
        mixes = [
            self.bits_of("", first=True, last=False),
            self.bits_of("", first=False, last=False),
            *([] if ends is None else [Bits(ends, ends)]),
            *(bits for _, bits in self.overrides),
        ]
        return tuple(
            sorted(
                {
                    mix.weight
                    for mix in mixes
                    if weight_grid(mix.weight, self.weights_reach(mix))
                    != weight_grid(mix.weight, KERNEL_REACH)
                }
            )
        )

    @property
    def clips_gradient(self) -> bool:
        """Whether clamped values pass no gradient."""
        return self.gradient == "clipped" or self.ranges == "learned"


# What a named scheme sets of it.
SCHEMES: dict[Named, Mapping[str, Any]] = {
    "integer": {"placement": "layer-input", "joins": 8},
    "paper": {"placement": "relu-output", "joins": None},
}


def _require_bits(bits: int | None, option: str) -> None:
    if bits is not None and not _LEAST <= bits <= _MOST:
        raise SchemeError(
            f"{bits} {'bit is' if bits == 1 else 'bits are'} not supported",
            where=option,
            remedy=f"choose {_LEAST} to {_MOST} bits",
        )
