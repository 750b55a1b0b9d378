"""Where activations are quantized: a placement surveys a network, and gives the sites found."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor, nn

from dreamquant.errors import SchemeError
from dreamquant.networks.relu_maps import is_relu
from dreamquant.quantization import operands, stored
from dreamquant.quantization.outputs import (
    ActivationOutputs,
    Recognise,
    in_place_reads,
    is_activation,
)
from dreamquant.quantization.scheme import Scheme

Quantizers = Mapping[str, nn.ModuleList]


class Sites(ABC):
    """The places of one network where activations are quantized, beside inputs of layers.

    Attributes:
        bits: of each quantizer in the order first used, by the group of quantizers that the
            student keeps it in.
        whole_biases: batch norms, each with the one layer whose result it reads, where biases are
            to be whole numbers of integer kernels; ``None`` leaves biases in float.
        logarithmic: positions among the operands whose grid is one of powers of two.
    """

    bits: Mapping[str, tuple[int, ...]]
    whole_biases: Mapping[str, str] | None = None
    logarithmic: frozenset[int] = frozenset()

    @abstractmethod
    def quantizing(self, quantizers: Quantizers) -> AbstractContextManager[Any]:
        """Let a forward pass within go through quantizers, grouped and numbered as ``bits``."""


class Placement(Protocol):
    """A way to choose where activations are quantized."""

    @property
    def layer_inputs(self) -> bool:
        """Whether each quantized layer also quantizes what it reads."""

    def survey(self, network: nn.Module, example: Tensor, layers: Sequence[str]) -> Sites:
        """Run a network once and find its sites.

        Args:
            network: in eval mode; it is left as it is.
            example: normalised images (B, C, H, W).
            layers: names of its layers that are to be quantized.

        Raises:
            SchemeError: it has none.
        """


def placement_of(scheme: Scheme) -> Placement:
    """The placement that a scheme names."""
    if scheme.placement == "relu-output":
        recognise = is_relu if scheme.activations == "relu" else is_activation
        written = scheme.activations != "relu"
        return AtActivationOutputs(scheme.bits.activation, recognise, written)
    if scheme.placement == "layer-input":
        return AtLayerInputs(scheme.joins)
    others = AtLayerInputs(scheme.joins)
    return AtOperands(scheme.bits.activation, others, scheme.softmax == "log2")


class Nowhere(Sites):
    """No site at all: a network in full precision, or one whose layers quantize their inputs."""

    bits: Mapping[str, tuple[int, ...]] = {}

    def quantizing(self, quantizers: Quantizers) -> AbstractContextManager[Any]:
        """Nothing."""
        return nullcontext()


@dataclass(frozen=True)
class AtActivationOutputs:
    """Quantizes what leaves each activation function.

    Attributes:
        activation_bits: of the quantizers.
        recognise: which calls are activation functions.
        written: whether those in place, as a statement, are quantized in their argument; results
            of before they were found leave these in float.
    """

    activation_bits: int
    recognise: Recognise
    written: bool
    layer_inputs: bool = False

    def survey(self, network: nn.Module, example: Tensor, layers: Sequence[str]) -> Sites:
        """See :meth:`Placement.survey`."""
        written = in_place_reads(network, example, self.recognise)
        if not written:
            raise SchemeError(
                "the network runs no activation function, so there is no output of one to quantize",
                where="--placement relu-output",
                remedy="use --placement layer-input",
            )
        if not self.written:
            written = (False,) * len(written)
        return ActivationSites(written, self.recognise, self.activation_bits)


class ActivationSites(Sites):
    """What leaves activation functions.

    Args:
        written: for each, whether its result is needed in its argument.
        recognise: which calls are activation functions.
        bits: of each.
    """

    def __init__(self, written: tuple[bool, ...], recognise: Recognise, bits: int) -> None:
        self.written, self.recognise = written, recognise
        self.bits = {"relu_outputs": (bits,) * len(written)}

    def quantizing(self, quantizers: Quantizers) -> AbstractContextManager[Any]:
        """See :meth:`Sites.quantizing`."""
        return ActivationOutputs(quantizers["relu_outputs"], self.written, self.recognise)


@dataclass(frozen=True)
class AtLayerInputs:
    """Quantizes what each convolution and linear layer reads, as integer hardware does.

    Attributes:
        joins: bits of what sums, concatenations, poolings or several layers read; ``None`` leaves
            that in float.
    """

    joins: int | None
    layer_inputs: bool = True

    def survey(self, network: nn.Module, example: Tensor, layers: Sequence[str]) -> Sites:
        """See :meth:`Placement.survey`."""
        if self.joins is None:
            return Nowhere()
        return StoredSites(stored.survey(network, layers, example), self.joins)


class StoredSites(Sites):
    """Tensors that hardware stores between layers: element-wise and concat inputs.

    Args:
        survey: where a forward pass reads them.
        bits: of each.
    """

    def __init__(self, survey: stored.Survey, bits: int) -> None:
        self.survey = survey
        self.bits, self.whole_biases = {"stored": (bits,) * survey.stored}, survey.norms

    def quantizing(self, quantizers: Quantizers) -> AbstractContextManager[Any]:
        """See :meth:`Sites.quantizing`."""
        return stored.StoredTensors(quantizers["stored"], self.survey)


@dataclass(frozen=True)
class AtOperands:
    """Quantizes both operands of every matrix product, and inputs of GELU.

    Attributes:
        activation_bits: of the quantizers.
        others: where layers and, if asked for, element-wise and concat inputs are quantized.
        logarithmic: whether what softmax gives is put on powers of two.
    """

    activation_bits: int
    others: AtLayerInputs
    logarithmic: bool
    layer_inputs: bool = True

    def survey(self, network: nn.Module, example: Tensor, layers: Sequence[str]) -> Sites:
        """See :meth:`Placement.survey`."""
        calls = operands.survey(network, layers, example)
        others = self.others.survey(network, example, layers)
        return OperandSites(calls, self.activation_bits, others, self.logarithmic)


class OperandSites(Sites):
    """Operands of matrix products, beside other sites.

    Args:
        calls: for each call that may have some, and each operand to quantize there, whether it is
            what softmax gave.
        bits: of each.
        others: see above.
        logarithmic: whether what softmax gives is put on powers of two.
    """

    def __init__(
        self, calls: tuple[tuple[bool, ...], ...], bits: int, others: Sites, logarithmic: bool
    ) -> None:
        self.calls, self.others = calls, others
        probabilities = [operand for call in calls for operand in call]
        self.bits = {**others.bits, "operands": (bits,) * len(probabilities)}
        if logarithmic:
            self.logarithmic = frozenset(i for i, given in enumerate(probabilities) if given)
        self.whole_biases = others.whole_biases

    def quantizing(self, quantizers: Quantizers) -> AbstractContextManager[Any]:
        """See :meth:`Sites.quantizing`."""
        stack = ExitStack()
        stack.enter_context(self.others.quantizing(quantizers))
        stack.enter_context(operands.OperandsMode(quantizers["operands"], self.calls))
        return stack
