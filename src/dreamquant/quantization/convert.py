"""From teacher to student: every layer found, quantized in place, and accounted for."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.overrides import TorchFunctionMode

from dreamquant.errors import NetworkError, SchemeError
from dreamquant.networks.taps import is_relu
from dreamquant.quantization.layers import (
    ActivationQuantizer,
    Student,
    WeightQuantizer,
)
from dreamquant.quantization.scheme import Bits, Scheme
from dreamquant.quantization.stored import layer_input
from dreamquant.quantization.stored import survey as survey_reads

_LAYER_TYPES = (nn.modules.conv._ConvNd, nn.Linear)
# What multiplies two tensors, and the position of the one that could be a quantized weight.
_PRODUCTS: dict[Callable[..., Any], int] = {
    F.linear: 1,
    F.conv1d: 1,
    F.conv2d: 1,
    F.conv3d: 1,
    F.conv_transpose1d: 1,
    F.conv_transpose2d: 1,
    F.conv_transpose3d: 1,
    F.bilinear: 2,
    torch.matmul: 1,
    Tensor.matmul: 1,  # and the operator @
    torch.mm: 1,
    Tensor.mm: 1,
    torch.bmm: 1,
    Tensor.bmm: 1,
    torch.addmm: 2,
    torch.baddbmm: 2,
    torch.einsum: 1,
    torch.tensordot: 1,
    F.scaled_dot_product_attention: 1,
    F.multi_head_attention_forward: 1,
}


@dataclass(frozen=True)
class QuantizedLayer:
    """One layer of the student on record.

    Attributes:
        name: within the user's module.
        kind: class of the layer, such as ``Conv2d``.
        weight_bits: of its weight.
        input_bits: of its input; ``None`` where the placement leaves the input alone.
        weights: how many.
        channels: how many weight scales it stores.
    """

    name: str
    kind: str
    weight_bits: int
    input_bits: int | None
    weights: int
    channels: int


@dataclass(frozen=True)
class Coverage:
    """What is quantized, what is not, and what it costs to store.

    Attributes:
        layers: quantized ones, in the order executed.
        relu_outputs: bits of each quantized ReLU output in the order executed.
        left_in_float: human-readable names of computations that stay in float.
        weight_bytes: packed integer weights.
        scale_bytes: scales (4 bytes) and zero-points (1 byte) of weights and activations.
        float_bytes: biases, batch norm and every tensor left as it was.
        stored: bits of each stored tensor, see :attr:`Scheme.joins`, in the order first read.
    """

    layers: tuple[QuantizedLayer, ...]
    relu_outputs: tuple[int, ...]
    left_in_float: tuple[str, ...]
    weight_bytes: int
    scale_bytes: int
    float_bytes: int
    stored: tuple[int, ...] = ()


@dataclass(frozen=True)
class _Survey:
    """What one forward pass of the teacher runs, in order."""

    layers: list[str]
    relus: int
    float_products: list[str]


class _Watch(TorchFunctionMode):
    """Counts ReLUs and names products whose weight belongs to no known layer."""

    def __init__(self, weights: set[int]) -> None:
        super().__init__()
        self.weights = weights
        self.relus = 0
        self.float_products: list[str] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        self.relus += is_relu(func, args, kwargs)
        position = _PRODUCTS.get(func)
        if position is not None and not self._known(args, kwargs, position):
            self.float_products.append(f"{func.__name__} of computed tensors")
        return func(*args, **kwargs)

    def _known(self, args: Any, kwargs: Any, position: int) -> bool:
        weight = args[position] if len(args) > position else kwargs.get("weight")
        return id(weight) in self.weights


def _survey(network: nn.Module, example: Tensor) -> _Survey:
    layers = {
        name: module for name, module in network.named_modules() if isinstance(module, _LAYER_TYPES)
    }
    executed: list[str] = []
    handles = [
        module.register_forward_pre_hook(lambda *_, name=name: executed.append(name))
        for name, module in layers.items()
    ]
    watch = _Watch({id(module.weight) for module in layers.values()})
    try:
        with torch.no_grad(), watch:
            network(example)
    finally:
        for handle in handles:
            handle.remove()
    never_run = [f"layer {name} (never run)" for name in layers if name not in executed]
    return _Survey(list(dict.fromkeys(executed)), watch.relus, watch.float_products + never_run)


def quantize_network(
    network: nn.Module, scheme: Scheme, example: Tensor
) -> tuple[Student, Coverage]:
    """Copy a network and put its convolution and linear layers on integers.

    Args:
        network: in eval mode; it is left as it is.
        scheme: what to quantize and how.
        example: normalised images (B, C, H, W) for the one forward pass that finds the layers.

    Returns:
        The student, whose activation ranges have yet to be observed, and its coverage.

    Raises:
        SchemeError: nothing in the network can be quantized as asked, or an override matches
            no layer.
        NetworkError: a layer's weight is no parameter of its own.
    """
    survey = _survey(network, example)
    _require_quantizable(survey, scheme)
    _require_plain_weights(network, survey.layers)
    student = copy.deepcopy(network).requires_grad_(True)
    first, last = survey.layers[0], survey.layers[-1]
    layers = [
        _quantize_layer(
            student, name, scheme, scheme.bits_of(name, first=name == first, last=name == last)
        )
        for name in survey.layers
    ]
    count = survey.relus if scheme.placement == "relu-output" else 0
    relus = nn.ModuleList(
        _activation_quantizer(scheme.bits.activation, scheme) for _ in range(count)
    )
    stored, reads = nn.ModuleList(), None
    if scheme.joins is not None:
        reads = survey_reads(network, survey.layers, example)
        stored.extend(_activation_quantizer(scheme.joins, scheme) for _ in range(reads.stored))
    result = Student(student, relus, stored, reads).eval()
    return result, _coverage(result, layers, survey)


def _require_quantizable(survey: _Survey, scheme: Scheme) -> None:
    if not survey.layers:
        raise SchemeError(
            "the network runs no convolution or linear module",
            remedy="quantization finds nn.Conv*, nn.ConvTranspose* and nn.Linear modules",
        )
    if scheme.placement == "relu-output" and survey.relus == 0:
        raise SchemeError(
            "the network runs no ReLU, so there is no ReLU output to quantize",
            where="--placement relu-output",
            remedy="use --placement layer-input",
        )
    for pattern, _ in scheme.overrides:
        if not any(fnmatchcase(name, pattern) for name in survey.layers):
            raise SchemeError(
                f"the override {pattern!r} matches no layer",
                where="overrides",
                remedy="layers are named " + ", ".join(survey.layers[:8]),
            )


def _require_plain_weights(network: nn.Module, layers: list[str]) -> None:
    for name in layers:
        if "weight" not in dict(network.get_submodule(name).named_parameters(recurse=False)):
            raise NetworkError(
                f"the weight of {name} is computed from other tensors, as by weight_norm",
                where=name,
                remedy="make it a parameter first: "
                "torch.nn.utils.parametrize.remove_parametrizations(layer, 'weight')",
            )


def _quantize_layer(student: nn.Module, name: str, scheme: Scheme, bits: Bits) -> QuantizedLayer:
    layer = student.get_submodule(name)
    weight = cast(Tensor, layer.weight)
    axis = 1 if getattr(layer, "transposed", False) else 0
    channels = weight.shape[axis]
    kind, weights = type(layer).__name__, weight.numel()
    quantizer = WeightQuantizer(
        bits.weight,
        channels,
        axis,
        learned=scheme.ranges == "learned",
        reach=scheme.weights_reach(bits),
    )
    quantizer.fit(weight)
    parametrize.register_parametrization(layer, "weight", quantizer)
    at_input = scheme.placement == "layer-input"
    if at_input:
        layer.add_module("input_quantizer", _activation_quantizer(bits.activation, scheme))
        layer.register_forward_pre_hook(_quantize_input, with_kwargs=True)
    input_bits = bits.activation if at_input else None
    return QuantizedLayer(name, kind, bits.weight, input_bits, weights, channels)


def _quantize_input(
    layer: nn.Module, inputs: tuple[Any, ...], keywords: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    quantizer = cast(ActivationQuantizer, layer.input_quantizer)
    if inputs:
        return (quantizer(layer_input(inputs[0])), *inputs[1:]), keywords
    return inputs, keywords | {"input": quantizer(layer_input(keywords["input"]))}


def _activation_quantizer(bits: int, scheme: Scheme) -> ActivationQuantizer:
    return ActivationQuantizer(
        bits,
        learned=scheme.ranges == "learned",
        clipped_gradient=scheme.clips_gradient,
        momentum=scheme.momentum,
    )


def _coverage(student: Student, layers: list[QuantizedLayer], survey: _Survey) -> Coverage:
    quantizers = student.activation_quantizers()
    channels = sum(layer.channels for layer in layers)
    return Coverage(
        layers=tuple(layers),
        relu_outputs=tuple(quantizer.bits for quantizer in student.relu_outputs),  # type: ignore[misc]
        left_in_float=tuple(survey.float_products),
        weight_bytes=sum((layer.weights * layer.weight_bits + 7) // 8 for layer in layers),
        scale_bytes=5 * (channels + len(quantizers)),
        float_bytes=sum(tensor.nbytes for tensor in student.float_state().values()),
        stored=tuple(quantizer.bits for quantizer in student.stored),  # type: ignore[misc]
    )
