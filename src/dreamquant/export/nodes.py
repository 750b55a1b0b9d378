"""Small functions for ONNX graphs: constants, nodes and their connections."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from dreamquant.export.graph import DOMAIN, WEIGHT
from dreamquant.export.saturation import PASSED_ON

_CLAMPS = frozenset({"Relu", "Clip"})
LAYERS = ("Conv", "ConvTranspose", "Gemm")
LARGEST = 255  # code of uint8

Floats = NDArray[np.float64]


def initializer(graph: ir.Graph, name: str, values: Any, dtype: ir.DataType) -> ir.Value:
    """The graph's constant ``name``; it is made from ``values`` if it does not exist."""
    if name in graph.initializers:
        return graph.initializers[name]
    tensor = ir.tensor(values, dtype=dtype, name=name)
    shape = ir.Shape(np.shape(values))
    value = ir.Value(name=name, type=ir.TensorType(dtype), shape=shape, const_value=tensor)
    graph.register_initializer(value)
    return value


def constant(value: ir.Value | None) -> Floats:
    """The values of a constant."""
    assert value is not None
    assert value.const_value is not None
    return value.const_value.numpy().astype(np.float64)


def named_node(
    kind: str,
    inputs: Iterable[ir.Value],
    name: str,
    like: ir.Value,
    dtype: ir.DataType = ir.DataType.FLOAT,
    **attributes: int,
) -> ir.Node:
    """A node with one result, which has the node's name and the shape of ``like``."""
    node = ir.node(kind, list(inputs), attributes, name=name)
    out = node.outputs[0]
    out.name, out.dtype, out.shape = name, dtype, like.shape
    return node


def read_by(node: ir.Node, index: int = 0) -> ir.Value:
    """Input ``index`` of a node; it must exist."""
    value = node.inputs[index]
    assert value is not None
    return value


def source_of(layer: ir.Node) -> ir.Node | None:
    """The node that makes a layer's input; operations that commute with quantizers are skipped."""
    node = read_by(layer).producer()
    while node is not None and node.op_type in PASSED_ON:
        node = read_by(node).producer()
    return node


def readers_of(node: ir.Node) -> list[ir.Node]:
    """The nodes that read a result; clamps and operations as above are skipped."""
    readers: list[ir.Node] = []
    for reader in node.outputs[0].consumers():
        readers += readers_of(reader) if reader.op_type in _CLAMPS | PASSED_ON else [reader]
    return readers


def bias_of(layer: ir.Node) -> ir.Value | None:
    """The bias of a layer, or ``None``."""
    return layer.inputs[2] if len(layer.inputs) > 2 else None


def set_bias(layer: ir.Node, bias: ir.Value) -> None:
    """Set the bias of a layer."""
    layer.resize_inputs(3)
    layer.replace_input_with(2, bias)


def weight_marker(layer: ir.Node) -> ir.Node | None:
    """The marker of a layer's quantized weight; ``None`` if the weight is not quantized."""
    marker = read_by(layer, 1).producer()
    if marker is None or (marker.domain, marker.op_type) != (DOMAIN, WEIGHT):
        return None
    return marker


def highest_code(value: ir.Value) -> int:
    """The largest possible code of a tensor."""
    node = value.producer()
    while node is not None and node.op_type in {"DequantizeLinear"} | PASSED_ON:
        node = read_by(node).producer()
    return int(constant(node.inputs[2])) if node and node.op_type == "Clip" else LARGEST


def regrouped(graph: ir.Graph, node: ir.Node, groups: int, shape: Sequence[int]) -> ir.Node:
    """Reorder a weight for a transposed convolution with groups: (inputs, outputs / groups, ...).

    Args:
        graph: the graph; it gets a reshape, a transpose and a reshape after ``node``.
        node: the node that makes the weight with output channels first.
        groups: number of groups of the convolution.
        shape: (outputs, inputs / groups, ...).
    """
    outputs, inputs, *kernel = shape
    out = outputs // groups
    apart = _reshaped(graph, node, "apart", [groups, out, inputs, *kernel])
    turned = ir.node(
        "Transpose",
        [apart.outputs[0]],
        {"perm": [0, 2, 1, *range(3, 3 + len(kernel))]},
        name=f"{node.name}.turned",
    )
    value = turned.outputs[0]
    value.name, value.dtype = turned.name, ir.DataType.FLOAT
    value.shape = ir.Shape([groups, inputs, out, *kernel])
    graph.insert_after(apart, turned)
    return _reshaped(graph, turned, "whole", [groups * inputs, out, *kernel])


def _reshaped(graph: ir.Graph, node: ir.Node, what: str, shape: list[int]) -> ir.Node:
    name = f"{node.name}.{what}"
    sizes = np.array(shape, np.int64)
    wanted = initializer(graph, f"{name}.shape", sizes, ir.DataType.INT64)
    reshaped = named_node("Reshape", [node.outputs[0], wanted], name, node.outputs[0])
    reshaped.outputs[0].shape = ir.Shape(shape)
    graph.insert_after(node, reshaped)
    return reshaped
