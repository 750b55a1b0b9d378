"""Saturation of sums in kernels without VNNI: which layers of a file it affects, and how often.

On x86 with AVX2 or AVX-512, but without VNNI, kernels multiply unsigned 8-bit activations by signed
8-bit weights. They store the sum of two neighbouring products in 16 bits, where it can saturate
(instruction ``vpmaddubsw``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from dreamquant import machine
from dreamquant.export.metadata import IMAGES
from dreamquant.export.parts import part
from dreamquant.export.runtime import EXACT, RUNTIMES, Array, Session

Integers = NDArray[np.int64]

_LEAST, _MOST = -(2**15), 2**15 - 1
_LAYERS = ("Conv", "ConvTranspose", "Gemm")
# Runtimes move quantizers across operations that only move or select values.
PASSED_ON = frozenset(
    {"Pad", "MaxPool", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Slice", "Flatten"}
)
_EMULATED = 2**24  # number of products per step
_IMAGES = 4


@dataclass(frozen=True)
class _Layer:
    """A layer whose input and weight are integers.

    Attributes:
        node: node of the graph.
        weight: codes minus zero-points, with the shape of the weight.
        scale: scale of the input.
        zero_point: zero-point of the input.
        highest: largest possible code of the input.
    """

    node: Any
    weight: Integers
    scale: float
    zero_point: int
    highest: int


def layers_that_may_saturate(model: Any) -> tuple[str, ...]:
    """Names of the layers in which a sum of two products may exceed 16 bits.

    The bound is valid for any pairing of products: it multiplies the sum of the two largest weights
    of each sign of an output channel by the largest possible code of the input.

    Args:
        model: an ``onnx.ModelProto`` that DreamQuant wrote.
    """
    return tuple(layer.node.name for layer in _layers(model) if _may_saturate(layer))


def saturated(model: Any, images: Array, session: Callable[[bytes], Session]) -> dict[str, float]:
    """For each layer that may saturate, the fraction of sums that saturate on images.

    It is computed in integers, so that it is the same on every machine. Products are paired as in
    the kernels: adjacent input channels of one position. Only a few images and positions are
    used. Transposed convolutions run in float in current runtimes, so they have no such sums.

    Args:
        model: as for :func:`layers_that_may_saturate`.
        images: normalised images (N, C, H, W).
        session: opens a file in a runtime, to get the input of each layer.
    """
    found = [layer for layer in _layers(model) if _may_saturate(layer)]
    if not found:
        return {}
    images = images[:_IMAGES]
    names = [layer.node.input[0] for layer in found]
    inputs = session(_showing(model, names)).run({IMAGES: images}, names)
    return {
        layer.node.name: _fraction(layer, values)
        for layer, values in zip(found, inputs, strict=True)
    }


def warn_of_saturation(model: Any, runtime: str) -> str:
    """The warning about a file on this processor, or ``""``.

    Args:
        model: as for :func:`layers_that_may_saturate`.
        runtime: the runtime that will run it.
    """
    layers = layers_that_may_saturate(model)
    if not layers or not saturates(runtime):
        return ""
    return (
        f"this processor ({machine.described()}) saturates sums of integers in {len(layers)} "
        "layers of this file, so that its outputs are wrong here: quantize again with "
        f"--weights-range safe, or set {EXACT}=1 in ONNX Runtime, which is exact but slower"
    )


@lru_cache
def saturates(runtime: str) -> bool:
    """Whether a runtime's kernels saturate on this processor; a small network is run to test it."""
    codes = np.full((1, 16, 8, 8), 255, np.uint8)
    session = RUNTIMES[runtime](_all_largest(), threads=1)
    (sums,) = session.run({IMAGES: codes}, ["sums"])
    return bool(sums.max() < 255)


def pair_sums(activations: Integers, weights: Integers) -> tuple[Integers, Integers]:
    """Exact sums of products, and the sums of kernels that store pairs in 16 bits.

    Args:
        activations: (M, K) codes; products of columns 0 and 1, 2 and 3, … are paired.
        weights: (O, K) codes minus zero-points.

    Returns:
        Exact and saturating sums, (M, O) each.
    """
    odd = activations.shape[1] % 2
    x, w = (np.pad(each, ((0, 0), (0, odd))) for each in (activations, weights))
    pairs = (x[:, None] * w[None]).reshape(len(x), len(w), -1, 2).sum(-1)
    return pairs.sum(-1), pairs.clip(_LEAST, _MOST).sum(-1)


def _may_saturate(layer: _Layer) -> bool:
    rows = _rows(layer)
    rows = np.pad(rows, ((0, 0), (0, 2)))  # a pair may have only one product, or none
    two = np.partition(rows, (1, -2), axis=1)
    largest = max(two[:, -2:].sum(1).max(initial=0), -two[:, :2].sum(1).min(initial=0))
    return bool(largest * layer.highest > _MOST)


def _rows(layer: _Layer) -> Integers:
    """The weights of each sum, (sums, products)."""
    kind, weight = layer.node.op_type, layer.weight
    if kind == "ConvTranspose" or (kind == "Gemm" and not _attribute(layer.node, "transB", 0)):
        weight = weight.swapaxes(0, 1)
    return weight.reshape(len(weight), -1)


def _layers(model: Any) -> list[_Layer]:
    to_array = part("onnx").numpy_helper.to_array
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    producers = {out: node for node in model.graph.node for out in node.output}

    def number(name: str) -> Any:
        return to_array(constants[name]).astype(np.int64)

    layers = []
    for node in model.graph.node:
        if node.op_type not in _LAYERS:
            continue
        source, weight = _behind(node.input[0], producers), producers.get(node.input[1])
        if source is None or source.op_type != "DequantizeLinear":
            continue
        if weight is None or weight.op_type != "DequantizeLinear":
            continue
        axis = _attribute(weight, "axis", 1)
        codes = number(weight.input[0])
        zero_point = number(weight.input[2]).reshape(
            [-1 if d == axis else 1 for d in range(codes.ndim)]
        )
        layers.append(
            _Layer(
                node,
                codes - zero_point,
                float(to_array(constants[source.input[1]])),
                int(number(source.input[2])),
                _highest(source.input[0], producers, constants),
            )
        )
    return layers


def _behind(name: str, producers: Mapping[str, Any]) -> Any:
    node = producers.get(name)
    while node is not None and node.op_type in PASSED_ON:
        node = producers.get(node.input[0])
    return node


def _highest(codes: str, producers: Mapping[str, Any], constants: Mapping[str, Any]) -> int:
    """The largest possible code of a tensor of codes."""
    node = _behind(codes, producers)
    if node is None or node.op_type != "Clip":
        return 255
    return int(part("onnx").numpy_helper.to_array(constants[node.input[2]]))


def _attribute(node: Any, name: str, default: Any) -> Any:
    found = [entry for entry in node.attribute if entry.name == name]
    return part("onnx").helper.get_attribute_value(found[0]) if found else default


def _showing(model: Any, names: list[str]) -> bytes:
    """The file with the tensors ``names`` as additional float outputs."""
    onnx = part("onnx")
    shown = onnx.ModelProto()
    shown.CopyFrom(model)
    known = {output.name for output in shown.graph.output}
    for name in dict.fromkeys(names):
        if name not in known:
            info = onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
            shown.graph.output.append(info)
    return bytes(shown.SerializeToString())


def _fraction(layer: _Layer, values: Array) -> float:
    """The fraction of a layer's sums that saturate."""
    if layer.node.op_type == "ConvTranspose":
        return 0.0
    codes = np.round(values / layer.scale).astype(np.int64) + layer.zero_point
    grouped = codes[:, None] if layer.node.op_type == "Gemm" else _columns(layer, codes)
    groups = _attribute(layer.node, "group", 1)
    rows = _packed(layer).reshape(groups, -1, grouped.shape[2])
    few = max(1, _EMULATED // rows.size)
    grouped = grouped[:: -(-len(grouped) // few)]
    wrong = [
        np.not_equal(*pair_sums(grouped[:, group], rows[group])).mean() for group in range(groups)
    ]
    return float(np.mean(wrong))


def _columns(layer: _Layer, codes: Integers) -> Integers:
    """The inputs of each sum of a convolution, (sums, groups, products), channels innermost."""
    size, dimensions = layer.weight.shape[2:], layer.weight.ndim - 2
    groups, channels = _attribute(layer.node, "group", 1), codes.shape[1]
    pads = _attribute(layer.node, "pads", [0] * 2 * dimensions)
    around = list(zip(pads[:dimensions], pads[dimensions:], strict=True))
    padded = np.pad(codes, [(0, 0), (0, 0), *around], constant_values=layer.zero_point)
    places = int(np.prod(size))
    # One kernel for each position of the window; it selects only that position.
    kernels = torch.eye(places).reshape(places, 1, *size).repeat(channels, *[1] * (dimensions + 1))
    convolve = (F.conv1d, F.conv2d, F.conv3d)[dimensions - 1]
    found = convolve(
        torch.from_numpy(padded).float(),
        kernels,
        stride=tuple(_attribute(layer.node, "strides", [1] * dimensions)),
        dilation=tuple(_attribute(layer.node, "dilations", [1] * dimensions)),
        groups=channels,
    )
    split = found.reshape(len(codes), groups, channels // groups, places, -1)
    rows = split.permute(0, 4, 1, 3, 2).reshape(-1, groups, places * channels // groups)
    return rows.numpy().astype(np.int64)


def _packed(layer: _Layer) -> Integers:
    """The weights in the order of :func:`_columns`, (sums, products)."""
    if layer.node.op_type == "Gemm":
        return _rows(layer)
    flat = layer.weight.reshape(*layer.weight.shape[:2], -1)
    return flat.swapaxes(1, 2).reshape(len(flat), -1)


def _all_largest() -> bytes:
    """A convolution in which all codes are 255 and 127, so that exact results are 255."""
    onnx = part("onnx")
    make, from_array = onnx.helper, onnx.numpy_helper.from_array
    scales = np.full(16, 1 / (127 * 16), np.float32)
    constants = {
        "one": np.float32(1),
        "zero": np.uint8(0),
        "weight": np.full((16, 16, 1, 1), 127, np.int8),
        "scales": scales,
    }
    nodes = [
        make.make_node("DequantizeLinear", [IMAGES, "one", "zero"], ["x"]),
        make.make_node("DequantizeLinear", ["weight", "scales"], ["w"], axis=0),
        make.make_node("Conv", ["x", "w"], ["y"]),
        make.make_node("QuantizeLinear", ["y", "one", "zero"], ["sums"]),
    ]
    kind, shape = onnx.TensorProto.UINT8, [1, 16, 8, 8]
    graph = make.make_graph(
        nodes,
        "largest",
        [make.make_tensor_value_info(IMAGES, kind, shape)],
        [make.make_tensor_value_info("sums", kind, shape)],
        [from_array(np.asarray(values), name) for name, values in constants.items()],
    )
    model = make.make_model(graph, opset_imports=[make.make_opsetid("", 21)], ir_version=10)
    return bytes(model.SerializeToString())
