"""Rewrites average pools over padding so that every runtime computes them correctly."""

from __future__ import annotations

from math import prod

import numpy as np
import onnx_ir as ir

from dreamquant.export.nodes import constant, initializer, named_node, read_by, source_of


def convolve_padded_pools(graph: ir.Graph) -> None:
    """Write average pools that count padding as depthwise convolutions with equal weights.

    OpenVINO 2026.4 pads codes with code 0 also where zero has another code: along the edges of
    ESPNetv2's maps, means deviated by up to 105 of 255 codes. ONNX Runtime 1.32 divides by another
    number than PyTorch where the last window is incomplete.

    Args:
        graph: a graph with encoded quantizers; changed in place.
    """
    for node in [node for node in graph if node.op_type == "AveragePool"]:
        counted = node.attributes.get_int("count_include_pad", 0)
        padded = any(node.attributes.get_ints("pads", ())) and not _zero_is_code_0(node)
        if counted and (padded or node.attributes.get_int("ceil_mode", 0)):
            _convolve(graph, node)


def _zero_is_code_0(node: ir.Node) -> bool:
    source = source_of(node)
    if source is None or source.op_type != "DequantizeLinear":
        return False
    return not constant(read_by(source, 2)).any()


def _convolve(graph: ir.Graph, node: ir.Node) -> None:
    read, out = read_by(node), node.outputs[0]
    kernel = node.attributes.get_ints("kernel_shape")
    strides = node.attributes.get_ints("strides", [1] * len(kernel))
    pads = np.reshape(node.attributes.get_ints("pads", [0] * 2 * len(kernel)), (2, -1))
    channels, before, after = _sides(read)[0], _sides(read)[1:], _sides(out)[1:]
    equal = np.full((channels, 1, *kernel), 1 / prod(kernel), np.float32)
    weight = initializer(graph, f"{node.name}.weight", equal, ir.DataType.FLOAT)
    reached = (np.array(after) - 1) * strides + kernel - before - pads[0]
    ends = np.maximum(reached, pads[1])
    convolved = named_node("Conv", [read, weight], f"{node.name}.convolved", out)
    convolved.attributes.update(
        {
            "group": ir.AttrInt64("group", channels),
            "strides": ir.AttrInt64s("strides", strides),
            "pads": ir.AttrInt64s("pads", [*pads[0].tolist(), *ends.tolist()]),
        }
    )
    made = [convolved]
    for side, beyond in enumerate((ends - pads[1]).tolist()):
        if not beyond:
            continue
        # PyTorch divides the last window by its places up to the end of the padding.
        factors = np.ones((after[side], *[1] * (len(kernel) - 1 - side)), np.float32)
        factors[-1] = kernel[side] / (kernel[side] - beyond)
        name = f"{node.name}.last.{side}"
        scale = initializer(graph, f"{name}.factors", factors, ir.DataType.FLOAT)
        made.append(named_node("Mul", [made[-1].outputs[0], scale], name, out))
    graph.insert_before(node, made)
    out.replace_all_uses_with(made[-1].outputs[0], replace_graph_outputs=True)
    graph.remove(node, safe=True)


def _sides(value: ir.Value) -> list[int]:
    """Channels and sides of maps, which do not depend on the number of images."""
    assert value.shape is not None  # the exporter writes every shape
    return [side for side in list(value.shape)[1:] if isinstance(side, int)]
