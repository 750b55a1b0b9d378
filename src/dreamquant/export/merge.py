"""Merges activation quantizers with the ReLU and the padding before them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
import torch

from dreamquant.export.graph import ACTIVATION, DOMAIN
from dreamquant.export.nodes import constant, read_by
from dreamquant.quantization.logarithmic import LogQuantizer
from dreamquant.quantization.quantizers import ActivationQuantizer


@dataclass(frozen=True)
class MergedQuantizer:
    """The input and the numbers of an activation quantizer; equal ones occur once in the file.

    A ReLU or a zero padding before the quantizer is swapped with it, so that the quantizer reads
    the result of the layer before them.
    """

    source: ir.Value
    scale: float
    zero_point: int
    lowest: int
    highest: int
    padding: ir.Node | None
    powers: bool = False  # of two, see :mod:`dreamquant.export.logarithmic`


def merged(marker: ir.Node, quantizer: ActivationQuantizer) -> MergedQuantizer:
    """A marker's quantizer, swapped with the padding and the ReLU before it."""
    value = read_by(marker)
    low, high = quantizer.grid
    if isinstance(quantizer, LogQuantizer):
        # The code of zero is the largest that the student uses.
        high = int(quantizer.codes(torch.zeros(())))
        return MergedQuantizer(value, float(quantizer.scale), 0, low, high, None, powers=True)
    padding = value.producer() if _only_quantized(value) else None
    if padding is not None and _pads_with_zeros(padding):
        value = read_by(padding)
        movable = len(value.uses()) == 1 and not value.is_graph_output()
    else:
        padding, movable = None, _only_quantized(value)
    clamp = value.producer()
    ends = _clamp(clamp) if clamp is not None and movable else None
    if clamp is not None and ends:
        value = read_by(clamp)
        floor, ceiling = ends
        low = max(low, _code_of(floor, quantizer)) if floor is not None else low
        high = min(high, _code_of(ceiling, quantizer)) if ceiling is not None else high
    return MergedQuantizer(
        value, float(quantizer.scale), int(quantizer.zero_point), low, high, padding
    )


def _only_quantized(value: ir.Value) -> bool:
    kinds = {(node.domain, node.op_type) for node in value.consumers()}
    return kinds == {(DOMAIN, ACTIVATION)} and not value.is_graph_output()


def _pads_with_zeros(node: ir.Node) -> bool:
    if node.op_type != "Pad" or node.attributes.get_string("mode", "constant") != "constant":
        return False
    value, axes = [*node.inputs, None, None][2:4]
    zeros = value is None or (value.const_value is not None and not constant(value).any())
    return zeros and axes is None


def _clamp(node: ir.Node) -> tuple[float | None, float | None] | None:
    """The limits of a ReLU or Clip; ``None`` for any other node."""
    if node.op_type == "Relu":
        return 0.0, None
    if node.op_type != "Clip" or any(end and end.const_value is None for end in node.inputs[1:]):
        return None
    low, high = (float(constant(end)) if end else None for end in [*node.inputs, None, None][1:3])
    return low, high


def _code_of(value: float, quantizer: ActivationQuantizer) -> int:
    steps = np.round(np.float32(value) / np.float32(float(quantizer.scale)))
    return int(np.clip(steps + int(quantizer.zero_point), *quantizer.grid))
