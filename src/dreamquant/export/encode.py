"""Replaces markers by standard ONNX operations for quantizers and integer kernels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import onnx_ir as ir

from dreamquant.export.fold import FACTOR
from dreamquant.export.graph import (
    ACTIVATION,
    CALL,
    DOMAIN,
    QUANTIZER,
    WEIGHT,
    attribute,
    place_of,
)
from dreamquant.export.logarithmic import REASON, around
from dreamquant.export.merge import MergedQuantizer, merged
from dreamquant.export.nodes import (
    LARGEST,
    LAYERS,
    Floats,
    bias_of,
    constant,
    highest_code,
    initializer,
    named_node,
    read_by,
    readers_of,
    regrouped,
    set_bias,
    source_of,
    weight_marker,
)
from dreamquant.export.weights import Codes, boxed, least_type, small
from dreamquant.quantization.student import Student

Target = Literal["int8box", "int4"]
# A bias is rounded to integers if that changes a smaller fraction of codes than this.
_MOVED = 0.001
_LARGEST_BIAS = 2**30
_QUANTIZE, _DEQUANTIZE = "QuantizeLinear", "DequantizeLinear"


@dataclass
class Encoded:
    """The result of encoding a graph.

    Attributes:
        codes: for each call of an activation quantizer, the name of the tensor with its codes
            (uint8).
        in_float: layers that no integer kernel can run, each with the reason.
    """

    codes: dict[int, str] = field(default_factory=dict)
    in_float: list[str] = field(default_factory=list)


def encode(model: ir.Model, student: Student, target: Target, *, two_bit: bool) -> Encoded:
    """Replace every marker of a graph with folded batch norms.

    Activations become ``QuantizeLinear → Clip → DequantizeLinear`` on uint8. The Clip works on
    integers and is left out if it changes nothing. If all results of a ReLU are quantized, the
    ReLU becomes part of that Clip; results are the same, because rounding is monotone. Weights
    become integer initialisers and ``DequantizeLinear``: int8 with zero-point zero for
    ``int8box``, the smallest possible ONNX type for ``int4``. Biases of integer kernels become
    int32 in units of the products.

    Args:
        model: from :func:`dreamquant.export.graph.draw`; changed in place.
        student: the student that the graph was made from.
        target: ``int8box`` for speed, ``int4`` for size.
        two_bit: store 2-bit weights as INT2, which needs opset 25 (``int4`` only).

    Raises:
        ExportError: 8-bit weights have a zero-point, as in results of earlier versions.
    """
    encoder = _Encoder(model.graph, student, target, two_bit)
    encoder.encode_activations()
    encoder.encode_biases()
    encoder.encode_weights()
    return encoder.encoded


class _Encoder:
    def __init__(self, graph: ir.Graph, student: Student, target: Target, two_bit: bool) -> None:
        self.graph, self.target, self.two_bit = graph, target, two_bit
        self.activations = student.activation_quantizers()
        self.weights = student.quantized_weights()
        self.made: dict[ir.Node, Codes] = {}
        self.encoded = Encoded()

    def _markers(self, kind: str) -> list[ir.Node]:
        return [node for node in self.graph if (node.domain, node.op_type) == (DOMAIN, kind)]

    # ------------------------------------------------------------------------- activations

    def encode_activations(self) -> None:
        made: dict[MergedQuantizer, tuple[ir.Value, ir.Value]] = {}
        for marker in self._markers(ACTIVATION):
            quantizer = merged(marker, self.activations[attribute(marker, QUANTIZER)])
            if quantizer not in made:
                made[quantizer] = self._insert(marker, quantizer)
            codes, values = made[quantizer]
            self.encoded.codes[int(attribute(marker, CALL))] = str(codes.name)
            marker.outputs[0].replace_all_uses_with(values, replace_graph_outputs=True)
            self._remove(marker, up_to=quantizer.source)

    def _remove(self, marker: ir.Node, *, up_to: ir.Value) -> None:
        """Remove a marker, and the nodes swapped with it if nothing else reads them."""
        value: ir.Value = marker.outputs[0]
        while value is not up_to and not value.uses():
            node = value.producer()
            assert node is not None  # up_to is an input of one of them
            value = read_by(node)
            self.graph.remove(node, safe=True)

    def _insert(self, marker: ir.Node, quantizer: MergedQuantizer) -> tuple[ir.Value, ir.Value]:
        """Insert the nodes of a quantizer before its marker; returns codes and values."""
        name, like = f"{attribute(marker, QUANTIZER)}.{attribute(marker, CALL)}", marker.outputs[0]
        scale = initializer(
            self.graph, f"{name}.scale", np.float32(quantizer.scale), ir.DataType.FLOAT
        )
        zero_point = self._code(f"{name}.zero_point", quantizer.zero_point)
        inputs = [quantizer.source, scale, zero_point]
        nodes = [named_node(_QUANTIZE, inputs, f"{name}.quantize", like, ir.DataType.UINT8)]
        if (quantizer.lowest, quantizer.highest) != (0, LARGEST):
            lowest = self._code(f"{name}.lowest", quantizer.lowest)
            highest = self._code(f"{name}.highest", quantizer.highest)
            inputs = [nodes[0].outputs[0], lowest, highest]
            nodes.append(named_node("Clip", inputs, f"{name}.clip", like, ir.DataType.UINT8))
        if quantizer.padding is not None:
            inputs = [nodes[-1].outputs[0], read_by(quantizer.padding, 1), zero_point]
            nodes.append(named_node("Pad", inputs, f"{name}.pad", like, ir.DataType.UINT8))
            for node in nodes[:-1]:
                node.outputs[0].shape = quantizer.source.shape
        codes: ir.Value = nodes[-1].outputs[0]
        nodes.append(
            named_node(_DEQUANTIZE, [codes, scale, zero_point], f"{name}.dequantize", like)
        )
        if quantizer.powers:
            nodes = around(self.graph, name, scale, nodes)
            self.encoded.in_float.append(f"{place_of(marker)}: {REASON}")
        self.graph.insert_before(marker, nodes)
        return codes, nodes[-1].outputs[0]

    def _code(self, name: str, value: int) -> ir.Value:
        return initializer(self.graph, name, np.uint8(value), ir.DataType.UINT8)

    # ------------------------------------------------------------------------------ biases

    def encode_biases(self) -> None:
        for layer in [node for node in self.graph if node.op_type in LAYERS]:
            marker = weight_marker(layer)
            name = attribute(marker, QUANTIZER) if marker else str(layer.name)
            reason = _obstacle(layer, marker)
            if marker is not None and not reason:
                reason = self._encode_bias(layer, marker)
            if reason:
                self.encoded.in_float.append(f"{name}: {reason}")

    def _encode_bias(self, layer: ir.Node, marker: ir.Node) -> str:
        """Encode the bias; returns the reason why the layer stays in float, or ``""``."""
        readers = readers_of(layer)
        if not self._is_boxed(marker):
            self._keep_bias(layer, marker, readers)
            return f"its weight is stored in {self._least_type(marker)}"
        scale = constant(source_of(layer).inputs[1])  # type: ignore[union-attr]
        unit = _unit(scale, self._codes(marker))
        bias = bias_of(layer)
        exact = constant(bias) if bias is not None else np.zeros_like(unit)
        rounded = np.round(exact / unit)
        step = float(constant(readers[0].inputs[1])) if _quantize(readers) else np.inf
        moved = float(np.abs(rounded * unit - exact).mean()) / step
        if moved > _MOVED:
            self._keep_bias(layer, marker, readers)
            return f"rounding its bias to 32-bit integers would change {moved:.2%} of its codes"
        self._round_bias(layer, attribute(marker, QUANTIZER), rounded, unit)
        return ""

    def _round_bias(self, layer: ir.Node, name: str, rounded: Floats, unit: Floats) -> None:
        name = f"{name}.bias.{layer.name}"
        integers = rounded.astype(np.int32)
        codes = initializer(self.graph, f"{name}.codes", integers, ir.DataType.INT32)
        values = unit.astype(np.float32)
        scale = initializer(self.graph, f"{name}.scale", values, ir.DataType.FLOAT)
        node = named_node(_DEQUANTIZE, [codes, scale], f"{name}.dequantize", codes, axis=0)
        self.graph.insert_before(layer, node)
        set_bias(layer, node.outputs[0])

    def _keep_bias(self, layer: ir.Node, marker: ir.Node, readers: Sequence[ir.Node]) -> None:
        """Add the bias in float after the layer; ONNX Runtime would round it in the layer."""
        bias, out = bias_of(layer), layer.outputs[0]
        if bias is None or not _quantize(readers):
            return
        assert out.shape is not None  # torch.export knows every rank
        wide = constant(bias).reshape([-1] + [1] * (len(out.shape) - 2)).astype(np.float32)
        name = f"{attribute(marker, QUANTIZER)}.bias.{layer.name}.added"
        added = initializer(self.graph, name, wide, ir.DataType.FLOAT)
        layer.resize_inputs(2)
        node = named_node("Add", [out, added], f"{name}.sum", out)
        out.replace_all_uses_with(node.outputs[0], replace_graph_outputs=True)
        node.replace_input_with(0, out)
        self.graph.insert_after(layer, node)

    # ----------------------------------------------------------------------------- weights

    def encode_weights(self) -> None:
        for marker in self._markers(WEIGHT):
            codes = self._codes(marker)
            name = f"{attribute(marker, QUANTIZER)}.weight"
            if FACTOR in marker.meta:
                name = f"{name}.{marker.name}"
            values, zero_point = codes.arrays()
            scale = codes.scale.astype(np.float32)
            inputs = [
                initializer(self.graph, f"{name}.codes", values, codes.dtype),
                initializer(self.graph, f"{name}.scale", scale, ir.DataType.FLOAT),
                initializer(self.graph, f"{name}.zero_point", zero_point, codes.dtype),
            ]
            own = f"{name}.{marker.name}.dequantize"
            like = marker.outputs[0] if codes.groups == 1 else inputs[0]
            node = named_node(_DEQUANTIZE, inputs, own, like, axis=codes.axis)
            self.graph.insert_before(marker, node)
            if codes.groups > 1:
                node = regrouped(self.graph, node, codes.groups, codes.codes.shape)
            marker.outputs[0].replace_all_uses_with(node.outputs[0])
            self.graph.remove(marker, safe=True)

    def _codes(self, marker: ir.Node) -> Codes:
        """The codes of a weight; computed once, while biases are still float."""
        if marker not in self.made:
            self.made[marker] = self._make_codes(marker)
        return self.made[marker]

    def _make_codes(self, marker: ir.Node) -> Codes:
        name = attribute(marker, QUANTIZER)
        weight, factor = self.weights[name], marker.meta.get(FACTOR)
        if not self._is_boxed(marker):
            return small(weight, factor, self._least_type(marker))
        highest = max(
            (highest_code(read_by(node)) for node in marker.outputs[0].consumers()), default=1
        )
        codes = boxed(weight, factor, highest, name)
        return codes.coarsened(_least_scale(codes, marker.outputs[0].consumers()))

    def _is_boxed(self, marker: ir.Node) -> bool:
        return self.target == "int8box" or self._least_type(marker) == ir.DataType.INT8

    def _least_type(self, marker: ir.Node) -> ir.DataType:
        bits = self.weights[attribute(marker, QUANTIZER)].quantizer.bits
        return least_type(bits, two_bit=self.two_bit)


def _obstacle(layer: ir.Node, marker: ir.Node | None) -> str:
    """The reason why no integer kernel can run the layer, or ``""``."""
    if marker is None:
        return "its weight is not quantized"
    source = source_of(layer)
    if source is None or source.op_type != _DEQUANTIZE:
        return "its input is not quantized"
    readers = [node.op_type for node in readers_of(layer)]
    if layer.op_type != "Gemm" and readers != [_QUANTIZE]:
        read = " and ".join(sorted(set(readers))) or "nothing"
        return f"its result is read by {read} before it is quantized"
    return ""


def _least_scale(codes: Codes, layers: Sequence[ir.Node]) -> Floats:
    """The smallest scales with which no bias exceeds 32 bits.

    A channel that batch norm made constant has tiny weights, but a bias of normal size.
    """
    least = np.zeros_like(codes.scale)
    for layer in layers:
        source, bias = source_of(layer), bias_of(layer)
        if source is not None and source.op_type == _DEQUANTIZE and bias is not None:
            unit = np.abs(constant(bias)) / _LARGEST_BIAS
            least = np.maximum(least, unit / constant(source.inputs[1]))
    return least


def _unit(input_scale: Floats, codes: Codes) -> Floats:
    """The float32 value of one integer unit of a kernel's sums."""
    product = codes.scale.astype(np.float32) * input_scale.astype(np.float32)
    return product.astype(np.float64)


def _quantize(readers: Sequence[ir.Node]) -> bool:
    return {node.op_type for node in readers} == {_QUANTIZE}
