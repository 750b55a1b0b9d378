"""Powers of two in a file: runtimes have no such quantizer, so the logarithm is quantized."""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from dreamquant.export.metadata import POWERS, RATIO
from dreamquant.export.nodes import initializer, named_node, read_by

REASON = (
    "attention is multiplied with values in float, because its codes are powers of two "
    "(--softmax log2)"
)


def around(graph: ir.Graph, name: str, scale: ir.Value, nodes: list[ir.Node]) -> list[ir.Node]:
    """The nodes of a linear quantizer, so that they quantize ``log(scale / x)``.

    In units of ``log(2)`` it is the number of halvings that lead from the scale to the value, which
    is the code. A table of the values, or comparisons with the middles between them, take two to
    four times as long in ONNX Runtime, and no code differs from theirs.

    Args:
        graph: gets the constant ``log(2)``.
        name: of the quantizer.
        scale: the largest value.
        nodes: ``QuantizeLinear``, ``Clip`` and ``DequantizeLinear`` without a zero-point, not in
            the graph yet; their source is ``x``.

    Returns:
        All nodes, in order.
    """
    source, like = read_by(nodes[0]), nodes[-1].outputs[0]
    halving = initializer(graph, "halving", np.float32(math.log(2)), ir.DataType.FLOAT)
    ratio = named_node("Div", [scale, source], f"{name}{RATIO}", like)
    logarithm = named_node("Log", ratio.outputs, f"{name}.logarithm", like)
    nodes[0].replace_input_with(0, logarithm.outputs[0])
    for node in (nodes[0], nodes[-1]):
        node.replace_input_with(1, halving)
    power = named_node("Exp", nodes[-1].outputs, f"{name}.power", like)
    powers = named_node("Div", [scale, power.outputs[0]], f"{name}{POWERS}", like)
    return [ratio, logarithm, *nodes, power, powers]
