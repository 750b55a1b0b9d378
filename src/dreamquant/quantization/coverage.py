"""Coverage: what a student computes and stores as integers, and what in float, by observation."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from dreamquant.errors import SchemeError
from dreamquant.quantization.dynamic import DynamicQuantizer
from dreamquant.quantization.observation import Products, Seen, kind_of
from dreamquant.quantization.student import LAYER_TYPES, Student

_NOISE_SEED = 0


@dataclass(frozen=True)
class QuantizedLayer:
    """The record of one layer of the student.

    Attributes:
        name: within the user's module.
        kind: class of the layer, such as ``Conv2d``.
        weight_bits: bits of its weight.
        input_bits: bits of its input; ``None`` if the placement does not quantize the input.
        weights: number of weights; 0 if they are counted with another layer that has the same
            weight.
        channels: number of weight scales that it stores; 0 likewise.
        shares: the other layer that has the same weight; ``None`` if the layer has its own.
        multiplications: number for each image.
        input_on_grid: whether all its inputs are quantized.
        weight_on_grid: whether it multiplies by the quantized weight itself, and not by a value
            computed from it.
    """

    name: str
    kind: str
    weight_bits: int
    input_bits: int | None
    weights: int
    channels: int
    shares: str | None
    multiplications: int
    input_on_grid: bool
    weight_on_grid: bool


@dataclass(frozen=True)
class FloatWeight:
    """A parameter of two or more dimensions without a quantizer.

    Attributes:
        name: within the user's module.
        count: number of values.
    """

    name: str
    count: int


@dataclass(frozen=True)
class Coverage:
    """What is quantized, what is not, and what it costs to store.

    Attributes:
        layers: quantized ones, in the order executed.
        relu_outputs: bits of each quantized output of an activation function, as executed.
        left_in_float: human-readable names of products that are computed in float, and of layers
            that never run.
        weight_bytes: packed integer weights.
        scale_bytes: scales (4 bytes) and zero-points (1 byte) of weights and activations.
        float_bytes: biases, batch norm and every tensor left as it was.
        stored: bits of each element-wise or concat input, see :attr:`Scheme.joins`, in the order
            first read.
        multiplications: of all products of an image.
        float_multiplications: of those with an operand that is not on a grid.
        float_weights: parameters of two or more dimensions that stay in float.
        operands: bits of each operand of a matrix product and input of GELU, in the order executed.
        float_functions: names of the calls of softmax and of norms that are not folded.
        dynamic_scales: of activations, found anew for each image.
        dynamic_values: of an image that they are found from, each read once more.
    """

    layers: tuple[QuantizedLayer, ...]
    relu_outputs: tuple[int, ...]
    left_in_float: tuple[str, ...]
    weight_bytes: int
    scale_bytes: int
    float_bytes: int
    stored: tuple[int, ...]
    multiplications: int
    float_multiplications: int
    float_weights: tuple[FloatWeight, ...]
    operands: tuple[int, ...]
    float_functions: tuple[str, ...]
    dynamic_scales: int = 0
    dynamic_values: int = 0


def observe_coverage(student: Student, example: Tensor) -> Coverage:
    """Run a copy of a student on noise, and observe which products read quantized tensors.

    Args:
        student: newly converted; it is not changed.
        example: normalised images (B, C, H, W); the noise has their shape, type and device.

    Raises:
        SchemeError: rounding activations changes nothing that the network computes.
    """
    network = copy.deepcopy(student)
    for parameter in network.parameters():
        parameter.detach_()
    noise = torch.randn(example.shape, generator=torch.Generator().manual_seed(_NOISE_SEED))
    noise = noise.to(example)
    with torch.no_grad():
        network.observe(True)
        network(noise)
        network.observe(False)
        seen = Products(network)
        with seen.watching() as count, seen:
            answer = network(noise)
        _require_rounding(network, noise, answer)
    return _coverage(student, seen, count() // len(example), len(example))


def _require_rounding(network: Student, noise: Tensor, answer: Any) -> None:
    """Make sure that rounding activations changes the output."""
    for quantizer in network.activation_quantizers().values():
        quantizer.register_forward_hook(lambda _, inputs, __: inputs[0])
    unrounded = network(noise)
    if all(map(torch.equal, tree_leaves(answer), tree_leaves(unrounded))):
        raise SchemeError(
            "rounding activations changes nothing that the network computes",
            where="--placement",
            remedy="use --placement layer-input",
        )


def _coverage(student: Student, products: Products, multiplications: int, images: int) -> Coverage:
    seen, quantizers = products.seen, student.activation_quantizers()
    layers = _layers(student, seen, images)
    in_float = sum(
        layer.multiplications
        for layer in layers
        if not (layer.input_on_grid and layer.weight_on_grid)
    )
    channels = sum(layer.channels for layer in layers)
    dynamic = [
        each
        for each in products.student.activation_quantizers().values()
        if isinstance(each, DynamicQuantizer)
    ]
    names = {id(module): name for name, module in products.student.network.named_modules()}
    idle = [
        f"layer {names[id(module)]} (never run)"
        for module in products.student.network.modules()
        if isinstance(module, LAYER_TYPES)
        and names[id(module)] not in products.layers
        and id(module.weight) not in seen.arguments
    ]
    return Coverage(
        layers=layers,
        relu_outputs=student.sites.bits.get("relu_outputs", ()),
        left_in_float=(*seen.others, *idle),
        weight_bytes=sum((layer.weights * layer.weight_bits + 7) // 8 for layer in layers),
        scale_bytes=5 * (channels + len(quantizers) - len(dynamic)),
        float_bytes=sum(tensor.nbytes for tensor in student.float_state().values()),
        stored=student.sites.bits.get("stored", ()),
        multiplications=multiplications,
        float_multiplications=in_float + seen.other_multiplications // images,
        float_weights=_float_weights(student),
        operands=student.sites.bits.get("operands", ()),
        float_functions=tuple(seen.functions),
        dynamic_scales=sum(each.scales for each in dynamic),
        dynamic_values=sum(each.values for each in dynamic),
    )


def _layers(student: Student, seen: Seen, images: int) -> tuple[QuantizedLayer, ...]:
    inputs, weights = student.input_quantizers(), student.quantized_weights()
    found = []
    owners = student.quantized_layers()
    for name, product in seen.layers.items():
        latent, quantizer = weights[owners[name]]
        own = owners[name] == name
        found.append(
            QuantizedLayer(
                name=name,
                kind=kind_of(student.network.get_submodule(name)),
                weight_bits=quantizer.bits,
                input_bits=inputs[name].bits if name in inputs else None,
                weights=latent.numel() if own else 0,
                channels=len(quantizer.scale) if own else 0,
                shares=None if own else owners[name],
                multiplications=product.multiplications // images,
                input_on_grid=product.input_on_grid,
                weight_on_grid=product.weight_on_grid,
            )
        )
    return tuple(found)


def _float_weights(student: Student) -> tuple[FloatWeight, ...]:
    quantized = {id(latent) for latent, _ in student.quantized_weights().values()}
    return tuple(
        FloatWeight(name, parameter.numel())
        for name, parameter in student.network.named_parameters()
        if parameter.dim() > 1 and id(parameter) not in quantized
    )
