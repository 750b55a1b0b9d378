"""Quantized outputs of activation functions: the placement of the GDFQ family of papers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from dreamquant.errors import NetworkError
from dreamquant.networks.relu_maps import is_relu

Recognise = Callable[[Callable[..., Any], Sequence[Any], Mapping[str, Any]], bool]

# By name, because PyTorch has several functions for the same operation. Sigmoid and tanh are not
# included: in convolutional networks they mostly compute the factors of gates.
_SMOOTH_OR_LEAKY = frozenset(
    {
        "celu",
        "elu",
        "gelu",
        "hardswish",
        "hardtanh",
        "leaky_relu",
        "mish",
        "prelu",
        "rrelu",
        "selu",
        "silu",
        "softplus",
    }
)


def is_activation(
    function: Callable[..., Any], arguments: Sequence[Any], keywords: Mapping[str, Any]
) -> bool:
    """Whether a torch call is an activation function: a ReLU of any form, or a newer function.

    A clamp of features from below at zero is a ReLU, with or without an upper limit.
    """
    name = getattr(function, "__name__", "").rstrip("_")
    if name in ("clamp", "clip", "clamp_min"):
        low = arguments[1] if len(arguments) > 1 else keywords.get("min")
        x = _argument(arguments, keywords)
        return isinstance(low, int | float) and low == 0 and x.dim() > 1 and x.is_floating_point()
    return name in _SMOOTH_OR_LEAKY or is_relu(function, arguments, keywords)


def _argument(arguments: Sequence[Any], keywords: Mapping[str, Any]) -> Tensor:
    """The input of an activation function."""
    x: Tensor = arguments[0] if arguments else keywords["input"]
    return x


class InPlaceReads(TorchFunctionMode):
    """Finds the in-place activations whose argument is read afterwards.

    ``x = relu_(x)`` and ``relu_(x)`` are the same call. Here the result of an in-place activation
    is replaced by a copy, so that a later read of the argument itself shows which form was written.

    Args:
        recognise: which calls are activations.

    Attributes:
        written: for each activation in the order executed, whether its result is needed in its
            argument.
    """

    def __init__(self, recognise: Recognise) -> None:
        super().__init__()
        self.recognise = recognise
        self.written: list[bool] = []
        self._arguments: dict[int, tuple[Tensor, int]] = {}  # keeps ids unique

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run ``func``; note what it reads."""
        kwargs = kwargs or {}
        if getattr(func, "__name__", "") != "__get__":  # of a shape, say
            self._note(args)
            self._note(kwargs.values())
        if not self.recognise(func, args, kwargs):
            return func(*args, **kwargs)
        x = _argument(args, kwargs)
        version = x._version
        result = func(*args, **kwargs)
        if result is x and x._version != version:
            for tensor in (x, *([] if x._base is None else [x._base])):
                self._arguments[id(tensor)] = tensor, len(self.written)
            result = x.clone()
        self.written.append(False)
        return result

    def _note(self, values: Any) -> None:
        for value in values:
            if isinstance(value, Tensor) and id(value) in self._arguments:
                self.written[self._arguments[id(value)][1]] = True
            elif isinstance(value, list | tuple):
                self._note(value)


@torch.no_grad()
def in_place_reads(network: nn.Module, example: Tensor, recognise: Recognise) -> tuple[bool, ...]:
    """See :attr:`InPlaceReads.written`; one entry for each activation of a forward pass.

    Args:
        network: in eval mode.
        example: normalised images (B, C, H, W).
        recognise: which calls are activations.
    """
    with InPlaceReads(recognise) as mode:
        network(example)
    return tuple(mode.written)


def applied(
    function: Callable[..., Any],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    change: Callable[[Tensor], Tensor],
) -> Tensor:
    """Run an in-place activation and write its changed result to its argument.

    The activation runs on a copy, because its gradient may need its result.

    Args:
        function: the activation.
        args: its arguments.
        kwargs: its keywords.
        change: maps its result to the changed one.
    """
    x = _argument(args, kwargs)
    others = {name: value for name, value in kwargs.items() if name != "input"}
    return x.copy_(change(function(x.clone(), *args[1:], **others)))


class ActivationOutputs(TorchFunctionMode):
    """Quantizes the output of the i-th activation of a forward pass with the i-th quantizer.

    Calls are counted instead of modules, because networks use one ReLU module in several places, or
    call the function without a module.

    Args:
        quantizers: one for each activation in the order executed.
        written: for each, whether its result is needed in its argument.
        recognise: which calls are activations.

    Raises:
        NetworkError: the forward pass runs another number of activations than there are quantizers.
    """

    def __init__(
        self, quantizers: nn.ModuleList, written: Sequence[bool], recognise: Recognise
    ) -> None:
        super().__init__()
        self.quantizers, self.written, self.recognise = quantizers, written, recognise
        self.calls = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run ``func``; if it is an activation, quantize its result."""
        kwargs = kwargs or {}
        if not self.recognise(func, args, kwargs):
            return func(*args, **kwargs)
        if self.calls == len(self.quantizers):
            raise self._miscounted()
        quantizer = self.quantizers[self.calls]
        self.calls += 1
        if self.written[self.calls - 1]:
            return applied(func, args, kwargs, quantizer)
        return quantizer(func(*args, **kwargs))

    def __exit__(self, *exception: Any) -> None:
        """Check that every quantizer was used."""
        super().__exit__(*exception)  # type: ignore[no-untyped-call]
        if exception[0] is None and self.calls != len(self.quantizers):
            raise self._miscounted()

    def _miscounted(self) -> NetworkError:
        return NetworkError(
            "a forward pass ran another number of activation functions than the "
            f"{len(self.quantizers)} quantized",
            where="placement relu-output",
            remedy="use --placement layer-input for networks whose forward pass varies",
        )
