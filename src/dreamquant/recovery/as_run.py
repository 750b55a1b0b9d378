"""Layers as they run: what a layer with a forward of its own hands to the convolution.

A convolution that pads like TensorFlow pads in its own ``forward``, so neither the module's input
nor its ``padding`` is what the convolution gets. Both are observed.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.overrides import TorchFunctionMode

from dreamquant.errors import NetworkError
from dreamquant.recovery.unfold import Layer

_SPATIAL = ("stride", "padding", "dilation", "output_padding")
_OPERANDS = ("input", "weight", "bias")
_FORWARD = (*_OPERANDS, "stride", "padding", "dilation", "groups")
_TRANSPOSED = (*_OPERANDS, "stride", "padding", "output_padding", "groups", "dilation")
# Names of the arguments, in their order.
_CALLS: Mapping[Callable[..., Any], tuple[str, ...]] = {
    **dict.fromkeys((F.conv1d, F.conv2d, F.conv3d), _FORWARD),
    **dict.fromkeys((F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d), _TRANSPOSED),
    F.linear: _OPERANDS,
}


def as_run(layer: Layer, x: Tensor) -> tuple[Layer, Tensor]:
    """The layer with the numbers that it runs with, and the input that its product gets.

    Args:
        layer: a convolution of any kind, or a linear layer.
        x: what the module is given.

    Raises:
        NetworkError: the layer computes with another tensor than its weight.
    """
    if not _has_own_forward(layer):
        return layer, x
    call = _Call(layer)
    with call:
        layer(x)
    if not call.found:
        raise NetworkError(
            f"{type(layer).__name__} has a forward of its own in which its weight is not found",
            remedy="use a method that does not solve for weights, such as --method squant",
        )
    plain = copy.copy(layer)
    for name in _SPATIAL:
        if name in call.found:
            setattr(plain, name, _for_each_side(call.found[name], layer))
    return plain, call.found["input"]


@torch.no_grad()
def require_products(network: nn.Module, example: Tensor) -> None:
    """Refuse a network in which a layer computes with another tensor than its weight.

    Args:
        network: in eval mode.
        example: normalised images (B, C, H, W).

    Raises:
        NetworkError: it names the layer's class.
    """
    layers = [m for m in network.modules() if isinstance(m, (_ConvNd, nn.Linear))]
    own = [layer for layer in layers if _has_own_forward(layer)]
    read: dict[Layer, Tensor] = {}

    def note(layer: nn.Module, given: tuple[Any, ...]) -> None:
        read[cast(Layer, layer)] = given[0]

    handles = [layer.register_forward_pre_hook(note) for layer in own]
    try:
        network(example)
    finally:
        for handle in handles:
            handle.remove()
    for layer, x in read.items():
        as_run(layer, x)


def _has_own_forward(layer: Layer) -> bool:
    library = next(kind for kind in type(layer).__mro__ if kind.__module__.startswith("torch.nn."))
    return inspect.getattr_static(layer, "forward") is not inspect.getattr_static(
        library, "forward"
    )


def _for_each_side(value: Any, layer: Layer) -> Any:
    sides = len(layer.weight.shape) - 2
    if isinstance(value, Sequence):
        return value if isinstance(value, str) or len(value) == sides else tuple(value) * sides
    return (value,) * sides


class _Call(TorchFunctionMode):
    """Records the arguments of the product with a layer's weight."""

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        self.weight = layer.weight
        self.found: dict[str, Any] = {}

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        names = _CALLS.get(func)
        if names is not None:
            given = {**dict(zip(names, args, strict=False)), **kwargs}
            if given["weight"] is self.weight:
                self.found = given
        return func(*args, **kwargs)
