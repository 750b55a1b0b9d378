"""Exports a student to one verified ONNX file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnx_ir.passes.common as passes
from numpy.typing import NDArray

from dreamquant.export import metadata
from dreamquant.export.encode import Target, encode
from dreamquant.export.fold import fold_batch_norms
from dreamquant.export.graph import BATCH, DOMAIN, Drawing
from dreamquant.export.means import lift_means
from dreamquant.export.metadata import IMAGES, Layout, own_layout
from dreamquant.export.nodes import initializer
from dreamquant.export.padding import convolve_padded_pools
from dreamquant.export.verify import Verification, verify, verify_form
from dreamquant.networks.endings import ending_of
from dreamquant.networks.spec import InputSpec
from dreamquant.quantization.student import Student

_TWO_BIT_OPSET = 25


@dataclass(frozen=True)
class OnnxFile:
    """A student's ONNX file in memory.

    Attributes:
        data: bytes of the file.
        verification: the comparison with the student.
        in_float: computations that stay in float, each with its reason.
    """

    data: bytes
    verification: Verification
    in_float: tuple[str, ...]


def onnx_file(
    student: Student,
    manifest: Mapping[str, Any],
    spec: InputSpec,
    target: Target,
    *,
    layout: Layout | None,
    two_bit: bool,
    drawing: Drawing | None = None,
) -> OnnxFile:
    """Trace, encode and verify a student.

    The file's input and outputs have the names in ``spec``.

    Args:
        student: a trained student; the file returns the outputs of the user's network.
        manifest: manifest of its result, for the file's metadata.
        spec: its input and outputs.
        target: see :func:`dreamquant.export.encode.encode`.
        layout: layout of the uint8 images that the file takes; ``None`` for ``spec.form``.
        two_bit: store 2-bit weights as INT2.
        drawing: the traced graph of this student, if several files are made.

    Raises:
        ExportError: the network cannot be exported, or the file fails its verification.
    """
    drawing = drawing or Drawing(student, spec)
    layout = layout or own_layout(spec.form)
    given, ending = drawing.student, ending_of(student)
    model = drawing.copy()
    unfolded = fold_batch_norms(model.graph)
    encoded = encode(model, given, target, two_bit=two_bit)
    lift_means(model.graph)
    convolve_padded_pools(model.graph)
    two_bit = _holds(model, ir.DataType.INT2)
    _tidy(model, spec.outputs, opset=_TWO_BIT_OPSET if two_bit else None)
    model.metadata_props.clear()
    model.metadata_props.update(metadata.describe(manifest, spec, target, layout, ending))
    plain = _serialized(model)
    # OpenVINO has no 2-bit integers.
    runtimes = ("onnxruntime",) if two_bit else ("onnxruntime", "openvino")
    verification = verify(plain, encoded.codes, given, spec, runtimes)
    in_float = (*unfolded, *encoded.in_float)
    record = asdict(verification) | {"in_float": in_float}
    model.metadata_props.update([metadata.encoded("verification", record)])
    if layout is not None:
        _take_pixels(model, spec, layout)
    elif spec.form == "nhwc":
        _take_channels_last(model, spec)
    if layout is not None or spec.form == "nhwc":
        verify_form(_serialized(model), plain, spec, layout)
    _name(model.graph.inputs[0], spec.entry, model)
    return OnnxFile(_serialized(model).SerializeToString(), verification, in_float)


def _holds(model: ir.Model, dtype: ir.DataType) -> bool:
    return any(value.dtype == dtype for value in model.graph.initializers.values())


def _tidy(model: ir.Model, outputs: Sequence[str], *, opset: int | None) -> None:
    """Remove unused nodes and values of markers, and name input and outputs."""
    passes.RemoveUnusedNodesPass()(model)
    passes.ClearMetadataAndDocStringPass()(model)
    model.opset_imports.pop(DOMAIN, None)
    model.producer_name = "dreamquant"
    (images,) = model.graph.inputs
    images.name = IMAGES
    for value, name in zip(model.graph.outputs, outputs, strict=True):
        _name(value, name, model)
    for value in (images, *model.graph.outputs):
        assert value.shape is not None  # torch.export sets every shape
        value.shape = ir.Shape([BATCH, *list(value.shape)[1:]])
    if opset is not None:
        model.opset_imports[""] = opset
        model.ir_version = onnx.helper.OP_SET_ID_VERSION_MAP[("ai.onnx", opset)]


def _name(value: ir.Value, name: str, model: ir.Model) -> None:
    """Name a value; if another value has this name, that one is renamed."""
    graph = model.graph
    inner = [made for node in graph for made in node.outputs]
    for other in (*graph.inputs, *graph.initializers.values(), *inner):
        if other is not value and other.name == name:
            other.name = f"{name}.inner"
    value.name = name


def _serialized(model: ir.Model) -> onnx.ModelProto:
    proto: onnx.ModelProto = ir.to_proto(model)
    return proto


def _take_channels_last(model: ir.Model, spec: InputSpec) -> None:
    """Make the network take channels last."""
    images = _entry(spec, "nhwc", ir.DataType.FLOAT)
    _prepend(model.graph, images, [_channels_first(images)])


def _entry(spec: InputSpec, layout: Layout, dtype: ir.DataType) -> ir.Value:
    channels, height, width = spec.image
    size = (height, width, channels) if layout == "nhwc" else spec.shape
    return ir.Value(name=IMAGES, type=ir.TensorType(dtype), shape=ir.Shape([BATCH, *size]))


def _channels_first(images: ir.Value) -> ir.Node:
    return ir.node("Transpose", [images], {"perm": [0, 3, 1, 2]}, name="pixels.nchw")


def _prepend(graph: ir.Graph, entry: ir.Value, nodes: Sequence[ir.Node]) -> None:
    """Insert nodes between the input and its readers."""
    (before,) = graph.inputs
    for node in nodes:
        node.outputs[0].name = f"{node.name}.out"
    before.replace_all_uses_with(nodes[-1].outputs[0])
    graph.inputs[0] = entry
    graph.insert_before(graph.node(0), nodes)


def _take_pixels(model: ir.Model, spec: InputSpec, layout: Layout) -> None:
    """Make the network take uint8 images and normalise them like evaluation."""
    graph = model.graph
    pixels = _entry(spec, layout, ir.DataType.UINT8)
    nodes = [ir.node("Cast", [pixels], {"to": ir.DataType.FLOAT}, name="pixels.float")]
    if layout == "nhwc":
        nodes.append(_channels_first(nodes[-1].outputs[0]))
    if spec.bgr:
        order = initializer(graph, "pixels.bgr", np.array([2, 1, 0]), ir.DataType.INT64)
        last = nodes[-1].outputs[0]
        nodes.append(ir.node("Gather", [last, order], {"axis": 1}, name="pixels.reversed"))
    for kind, name, values in (
        ("Div", "pixels.levels", np.float32(255)),
        ("Sub", "pixels.mean", _per_channel(spec.mean)),
        ("Div", "pixels.std", _per_channel(spec.std)),
    ):
        number = initializer(graph, name, values, ir.DataType.FLOAT)
        nodes.append(ir.node(kind, [nodes[-1].outputs[0], number], name=f"{name}.apply"))
    _prepend(graph, pixels, nodes)


def _per_channel(values: tuple[float, ...]) -> NDArray[np.float32]:
    return np.array(values, np.float32).reshape(1, -1, 1, 1)
