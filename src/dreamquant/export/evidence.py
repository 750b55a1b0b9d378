"""Data for a report about a layer with wrong codes: operations and codes, without weights."""

from __future__ import annotations

from collections.abc import Set
from typing import Any

import numpy as np

from dreamquant.export.parts import part
from dreamquant.export.runtime import Array

_EXAMPLES = 200
_SCALARS = 1  # constants with more values are weights or biases


def evidence(model: Any, name: str, codes: Set[str], found: Array, wanted: Array) -> dict[str, Any]:
    """The operations between a layer's input codes and output codes, and the differing codes.

    Args:
        model: the ``onnx.ModelProto``.
        name: name of the tensor with wrong codes.
        codes: names of all tensors of codes.
        found: codes of the file (uint8).
        wanted: codes of the student.
    """
    differing = np.argwhere(found != wanted)[:_EXAMPLES]
    places = [tuple(int(i) for i in place) for place in differing]
    return {
        "codes": name,
        "shape": list(wanted.shape),
        "operations": _operations(model, name, codes),
        "differing": [[list(at), int(found[at]), int(wanted[at])] for at in places],
    }


def _operations(model: Any, name: str, codes: Set[str]) -> list[dict[str, Any]]:
    """Operations in the order executed, starting where other codes are read."""
    producers = {out: node for node in model.graph.node for out in node.output}
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    wanted, seen = [name], set()
    while wanted:
        node = producers.get(wanted.pop())
        if node is None or node.name in seen:
            continue
        seen.add(node.name)
        wanted += [source for source in node.input if source not in codes]
    return [_described(node, constants) for node in model.graph.node if node.name in seen]


def _described(node: Any, constants: dict[str, Any]) -> dict[str, Any]:
    onnx = part("onnx")
    attributes = {
        entry.name: onnx.helper.get_attribute_value(entry)
        for entry in node.attribute
        if entry.type in (entry.INT, entry.INTS, entry.FLOAT)
    }
    return {
        "kind": node.op_type,
        "name": node.name,
        "attributes": {
            name: list(value) if isinstance(value, (list, tuple)) else value
            for name, value in attributes.items()
        },
        "inputs": [_input(name, constants) for name in node.input],
        "outputs": list(node.output),
    }


def _input(name: str, constants: dict[str, Any]) -> dict[str, Any]:
    if name not in constants:
        return {"name": name}
    values = part("onnx").numpy_helper.to_array(constants[name])
    shown = {"value": values.astype(np.float64).item()} if values.size == _SCALARS else {}
    return {"name": name, "shape": list(values.shape), "type": str(values.dtype), **shown}
