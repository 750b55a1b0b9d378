"""Rewrites means of 3-d tensors of codes so that every runtime computes them correctly."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from dreamquant.export.nodes import initializer, source_of

_RANK = 3


def lift_means(graph: ir.Graph) -> None:
    """Add a fourth dimension of size 1 to 3-d tensors of codes before means.

    OpenVINO 2026.4 computes them wrongly: from 8 to 40 images on, its kernel for 8-bit integers
    returns random numbers, different in each run. In four dimensions it is correct. Such means
    occur in heads like ``x.flatten(2).mean(2)``, and over the tokens of a transformer.

    Args:
        graph: a graph with encoded quantizers; changed in place.
    """
    for node in [node for node in graph if node.op_type == "ReduceMean"]:
        source, (read, *_) = source_of(node), node.inputs
        if source is None or source.op_type != "DequantizeLinear":
            continue
        if read is not None and read.shape is not None and len(read.shape) == _RANK:
            _lift(graph, node, read)


def _lift(graph: ir.Graph, node: ir.Node, read: ir.Value) -> None:
    last = initializer(graph, "last_dimension", np.array([-1], np.int64), ir.DataType.INT64)
    axes = node.inputs[1]
    assert axes is not None
    assert axes.const_value is not None  # the exporter always writes constants
    found = axes.const_value.numpy() % _RANK
    own = initializer(graph, f"{node.name}.axes", found, ir.DataType.INT64)
    wider = ir.node("Unsqueeze", [read, last], name=f"{node.name}.wider")
    lifted = ir.node("ReduceMean", [wider.outputs[0], own], name=f"{node.name}.lifted")
    lifted.attributes.update(node.attributes)
    narrower = ir.node("Squeeze", [lifted.outputs[0], last], name=f"{node.name}.narrower")
    for made in (wider, lifted, narrower):
        made.outputs[0].name = f"{made.name}.out"
        made.outputs[0].type = node.outputs[0].type
    narrower.outputs[0].shape = node.outputs[0].shape
    graph.insert_before(node, [wider, lifted, narrower])
    node.outputs[0].replace_all_uses_with(narrower.outputs[0], replace_graph_outputs=True)
    graph.remove(node, safe=True)
