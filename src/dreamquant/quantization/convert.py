"""From teacher to student: every layer found, and quantized in place."""

from __future__ import annotations

import copy
from fnmatch import fnmatchcase
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from dreamquant.errors import NetworkError, SchemeError
from dreamquant.networks.attention import split_attention
from dreamquant.quantization.coverage import Coverage, observe_coverage
from dreamquant.quantization.dynamic import DynamicQuantizer
from dreamquant.quantization.logarithmic import LogQuantizer
from dreamquant.quantization.placement import Placement, placement_of
from dreamquant.quantization.quantizers import ActivationQuantizer, WeightQuantizer
from dreamquant.quantization.scheme import Bits, Scheme
from dreamquant.quantization.stored import layer_input
from dreamquant.quantization.student import LAYER_TYPES, Student, channel_layout


def quantize_network(
    network: nn.Module, scheme: Scheme, example: Tensor
) -> tuple[Student, Coverage]:
    """Copy a network, put its convolution and linear layers on integers, and see what that covers.

    Args:
        network: in eval mode; it is left as it is.
        scheme: what to quantize and how.
        example: normalised images (B, C, H, W), whose shape, type and device forward passes get.

    Returns:
        The student, whose activation ranges have yet to be observed, and its coverage.

    Raises:
        SchemeError: nothing in the network can be quantized as asked, an override matches no
            layer, or rounding activations changes nothing that the network computes.
        NetworkError: a layer's weight is no parameter of its own, or layers that share one use it
            in different ways.
    """
    student = convert(network, scheme, example)
    return student, observe_coverage(student, example)


def convert(network: nn.Module, scheme: Scheme, example: Tensor) -> Student:
    """The student of :func:`quantize_network`, which see, without a look at what it covers."""
    network = prepared(network, scheme)
    layers = executed_layers(network, example)
    _require_quantizable(layers, scheme)
    _require_plain_weights(network, layers)
    placement = placement_of(scheme)
    sites = placement.survey(network, example, layers)
    student = copy.deepcopy(network).requires_grad_(True)
    first, last = layers[0], layers[-1]
    shared: dict[int, WeightQuantizer] = {}
    for name in layers:
        bits = scheme.bits_of(name, first=name == first, last=name == last)
        _quantize_layer(student, name, scheme, placement, bits, shared)
    _share(student, shared)
    return Student(student, sites, partial(_activation_quantizer, scheme=scheme)).eval()


def prepared(network: nn.Module, scheme: Scheme) -> nn.Module:
    """The network whose layers have the names of the student's: itself, or a copy in parts."""
    if scheme.placement != "operands":
        return network
    return split_attention(copy.deepcopy(network))


def executed_layers(network: nn.Module, example: Tensor) -> list[str]:
    """Names of the layers that a forward pass runs, in the order first run."""
    executed: dict[str, None] = {}
    handles = [
        module.register_forward_pre_hook(lambda *_, name=name: executed.setdefault(name))
        for name, module in network.named_modules()
        if isinstance(module, LAYER_TYPES)
    ]
    try:
        with torch.no_grad():
            network(example)
    finally:
        for handle in handles:
            handle.remove()
    return list(executed)


def _require_quantizable(layers: list[str], scheme: Scheme) -> None:
    if not layers:
        raise SchemeError(
            "the network runs no convolution or linear module",
            remedy="quantization finds nn.Conv*, nn.ConvTranspose* and nn.Linear modules",
        )
    for pattern, _ in scheme.overrides:
        if not any(fnmatchcase(name, pattern) for name in layers):
            raise SchemeError(
                f"the override {pattern!r} matches no layer",
                where="overrides",
                remedy="layers are named " + ", ".join(layers[:8]),
            )


def _require_plain_weights(network: nn.Module, layers: list[str]) -> None:
    for name in layers:
        if "weight" not in dict(network.get_submodule(name).named_parameters(recurse=False)):
            raise NetworkError(
                f"the weight of {name} is computed by code of the network's own",
                where=name,
                remedy="compute it once, in the factory, and assign it to the layer "
                "without its hook: layer.weight = torch.nn.Parameter(value)",
            )


def _quantize_layer(
    student: nn.Module,
    name: str,
    scheme: Scheme,
    placement: Placement,
    bits: Bits,
    shared: dict[int, WeightQuantizer],
) -> None:
    layer = student.get_submodule(name)
    weight = cast(nn.Parameter, layer.weight)
    axis, groups = channel_layout(layer)
    channels = groups * weight.shape[axis]
    # Layers that share a parameter share its quantizer: its codes are the same for both.
    quantizer = shared.get(id(weight))
    if quantizer is None:
        learned = scheme.ranges == "learned"
        reach = scheme.weights_reach(bits)
        quantizer = WeightQuantizer(
            bits.weight, channels, axis, groups, learned=learned, reach=reach
        )
        quantizer.fit(weight)
        shared[id(weight)] = quantizer
    elif (quantizer.axis, quantizer.groups) != (axis, groups):
        raise NetworkError(
            f"{name} shares its weight with a layer whose output channels lie along another axis",
            where=name,
            remedy="give it a weight of its own: layer.weight = nn.Parameter(layer.weight.clone())",
        )
    parametrize.register_parametrization(layer, "weight", quantizer)
    if placement.layer_inputs:
        layer.add_module("input_quantizer", _activation_quantizer(bits.activation, scheme=scheme))
        layer.register_forward_pre_hook(_quantize_input, with_kwargs=True)


def _share(student: nn.Module, shared: dict[int, WeightQuantizer]) -> None:
    """Let whatever else holds a quantized parameter, such as an embedding, see it quantized."""
    for module in list(student.modules()):
        if isinstance(module, parametrize.ParametrizationList):
            continue
        for name, parameter in list(module.named_parameters(recurse=False)):
            if id(parameter) in shared:
                parametrize.register_parametrization(module, name, shared[id(parameter)])


def _quantize_input(
    layer: nn.Module, inputs: tuple[Any, ...], keywords: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    quantizer = cast(ActivationQuantizer, layer.input_quantizer)
    if inputs:
        return (quantizer(layer_input(inputs[0])), *inputs[1:]), keywords
    return inputs, keywords | {"input": quantizer(layer_input(keywords["input"]))}


def _activation_quantizer(
    bits: int, logarithmic: bool = False, *, scheme: Scheme
) -> ActivationQuantizer:
    shared: dict[str, Any] = {
        "clipped_gradient": scheme.clips_gradient,
        "momentum": scheme.momentum,
    }
    if scheme.granularity == "image-channel":
        return DynamicQuantizer(bits, **shared)
    kind = LogQuantizer if logarithmic else ActivationQuantizer
    return kind(bits, learned=scheme.ranges == "learned", **shared)
