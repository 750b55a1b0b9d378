"""Folds batch norms into the layers before them, on the exported graph."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from dreamquant.export.graph import QUANTIZER, attribute
from dreamquant.export.nodes import (
    LAYERS,
    bias_of,
    constant,
    initializer,
    read_by,
    set_bias,
    weight_marker,
)

FACTOR = "dreamquant.factor"  # key in a weight marker's ``meta``: float64, one per output channel


def fold_batch_norms(graph: ir.Graph) -> list[str]:
    """Fold each batch norm into the layer before it, if nothing else reads that layer's result.

    Let ``f = weight / sqrt(var + eps)``. The layer's weights must be multiplied by ``f`` for each
    output channel; this happens when they are encoded (``FACTOR``). The bias becomes
    ``(bias - mean) * f + shift``. Both are computed in float64.

    Args:
        graph: the graph of :func:`dreamquant.export.graph.draw`; changed in place.

    Returns:
        Batch norms that could not be folded and stay float operations, with the reason.
    """
    left = []
    for norm in [node for node in graph if node.op_type == "BatchNormalization"]:
        layer = read_by(norm).producer()
        reason = _obstacle(layer)
        if layer is None or reason:
            left.append(f"batch norm {norm.name}: {reason}")
        else:
            _fold(graph, layer, norm)
    return left


def _obstacle(layer: ir.Node | None) -> str:
    if layer is None or layer.op_type not in LAYERS:
        return "no layer is directly before it"
    if layer.outputs[0].is_graph_output():
        return f"the result of {layer.name} is also an output of the network"
    if len(layer.outputs[0].uses()) > 1:
        return f"another operation also reads the result of {layer.name}"
    marker = weight_marker(layer)
    if marker is None or len(marker.outputs[0].uses()) > 1:
        return f"another layer shares the weight of {layer.name}"
    return ""


def _fold(graph: ir.Graph, layer: ir.Node, norm: ir.Node) -> None:
    weight, shift, mean, variance = (constant(value) for value in norm.inputs[1:])
    factor = weight / np.sqrt(variance + norm.attributes["epsilon"].as_float())
    marker = weight_marker(layer)
    assert marker is not None  # otherwise there was an obstacle
    marker.meta[FACTOR] = factor
    bias = bias_of(layer)
    before = constant(bias) if bias is not None else np.zeros_like(mean)
    after = ((before - mean) * factor + shift).astype(np.float32)
    name = f"{attribute(marker, QUANTIZER)}.bias.{layer.name}"
    set_bias(layer, initializer(graph, name, after, ir.DataType.FLOAT))
    norm.outputs[0].replace_all_uses_with(layer.outputs[0], replace_graph_outputs=True)
    graph.remove(norm, safe=True)
