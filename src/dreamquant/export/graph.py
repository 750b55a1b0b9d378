"""Converts a student to an ONNX graph of float operations with a marker for each quantizer."""

from __future__ import annotations

import ast
import copy
from functools import cached_property
from typing import Any

import onnx_ir as ir
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import ParametrizationList

from dreamquant.errors import ExportError
from dreamquant.export.metadata import IMAGES
from dreamquant.export.pools import PlainPools
from dreamquant.export.tracing import tracing
from dreamquant.networks.endings import as_given
from dreamquant.networks.spec import InputSpec
from dreamquant.quantization.dynamic import DynamicQuantizer
from dreamquant.quantization.quantizers import WeightQuantizer, as_layer_weight
from dreamquant.quantization.student import Student

DOMAIN = "dreamquant"
ACTIVATION, WEIGHT = "Activation", "Weight"
QUANTIZER, CALL = "quantizer", "call"
_SCOPES = "pkg.torch.onnx.name_scopes"  # key in a node's metadata: modules, from the outermost on
_NETWORK = "student.network."
BATCH = "batch"
OPSET = 21  # the first version with 4-bit integers, and the last that every common runtime supports


class _Calls:
    """Numbers the calls of quantizers, so that the exporter does not merge equal calls."""

    def __init__(self) -> None:
        self.made = 0

    def next(self) -> int:
        self.made += 1
        return self.made - 1


class _ActivationMarker(nn.Module):
    def __init__(self, name: str, calls: _Calls) -> None:
        super().__init__()
        self.name, self.calls = name, calls

    def forward(self, x: Tensor) -> Tensor:
        """``x`` after a node with the name of the quantizer and the number of the call."""
        return _marked(x, ACTIVATION, {QUANTIZER: self.name, CALL: self.calls.next()})


class _WeightMarker(nn.Module):
    def __init__(self, name: str) -> None:
        super().__init__()
        self.name, self.uses = name, _Calls()

    def forward(self, weight: Tensor) -> Tensor:
        """``weight`` after a node with the name of the layer; each use has a separate node."""
        attributes = {QUANTIZER: self.name, CALL: self.uses.next()}
        return as_layer_weight(_marked(weight, WEIGHT, attributes))


def _marked(x: Tensor, kind: str, attributes: dict[str, Any]) -> Tensor:
    return torch.onnx.ops.symbolic(
        f"{DOMAIN}::{kind}", (x,), attributes, dtype=x.dtype, shape=x.shape, version=1
    )


class _MarkedStudent(nn.Module):
    """A copy of a student that is only traced, with markers instead of quantizers."""

    def __init__(self, student: Student) -> None:
        super().__init__()
        self.student, self.calls = copy.deepcopy(student), _Calls()
        for name in student.activation_quantizers():
            parent, _, own = name.rpartition(".")
            setattr(self.student.get_submodule(parent), own, _ActivationMarker(name, self.calls))
        markers = {
            self.student.quantized_weights()[name].quantizer: _WeightMarker(name)
            for name in student.quantized_weights()
        }
        for module in list(self.student.network.modules()):
            if isinstance(module, ParametrizationList) and isinstance(module[0], WeightQuantizer):
                module[0] = markers[module[0]]

    def forward(self, images: Tensor) -> Any:
        self.calls.made = 0
        with PlainPools():
            return self.student(images)


def draw(student: Student, spec: InputSpec) -> ir.Model:
    """Trace the float graph of a student, from ``images`` (batch, ...) to its outputs.

    Each call of an activation quantizer is a node ``dreamquant::Activation`` with attributes
    ``quantizer`` (its name in the student) and ``call`` (counted from 0 in the order executed);
    each use of a quantized weight a node ``dreamquant::Weight`` with the name of its layer and
    the number of the use.

    Args:
        student: a trained student.
        spec: its input and outputs.

    Raises:
        ExportError: the network's code cannot be traced, or an operation has no ONNX form.
    """
    with tracing(student.network, "torch.onnx.export"):
        program = torch.onnx.export(
            _MarkedStudent(student).eval(),
            (torch.zeros(2, *spec.shape),),
            dynamo=True,
            opset_version=OPSET,
            input_names=[IMAGES],
            dynamic_shapes=({0: torch.export.Dim(BATCH)},),
            verbose=False,
        )
    assert program is not None  # None only for the older exporter
    _require_any_batch(program.model, student.network)
    return program.model


class Drawing:
    """A student's graph, traced once for several files, because tracing takes seconds.

    Args:
        student: a trained student; the graph returns the outputs of the user's network.
        spec: its input and outputs.

    Raises:
        ExportError: its activation ranges are computed for each image.
    """

    def __init__(self, student: Student, spec: InputSpec) -> None:
        _require_static(student)
        self.student, self.spec = as_given(student), spec

    def copy(self) -> ir.Model:
        """A copy of the graph, which the caller may change.

        Raises:
            ExportError: see :func:`draw`.
        """
        model: ir.Model = ir.from_proto(self._drawn)
        return model

    @cached_property
    def _drawn(self) -> Any:
        return ir.to_proto(draw(self.student, self.spec))


def _require_static(student: Student) -> None:
    quantizers = student.activation_quantizers().values()
    if any(isinstance(quantizer, DynamicQuantizer) for quantizer in quantizers):
        raise ExportError(
            "activation ranges are computed for each image and channel, but kernels of runtimes "
            "need one static range for each tensor",
            where="--target",
            remedy="quantize by a method whose ranges are static, such as adadfq",
        )


def _require_any_batch(model: ir.Model, network: nn.Module) -> None:
    shape = model.graph.outputs[0].shape
    if shape is None or not isinstance(shape[0], int):
        return
    raise ExportError(
        "the network cannot be exported: its code fixes the number of images as a constant",
        where=type(network).__name__,
        remedy="in its forward pass, use `x.shape[0]` wherever that number is needed, and do not "
        "convert it to int",
    )


def attribute(node: ir.Node, name: str) -> str:
    """An attribute of a marker as text."""
    return str(node.attributes[name].value)


def place_of(marker: ir.Node) -> str:
    """The module of the network that runs a quantizer; else the name of the quantizer."""
    scopes = ast.literal_eval(marker.metadata_props.get(_SCOPES, "[]"))
    within = [scope for scope in scopes if scope.startswith(_NETWORK)]
    return within[-1].removeprefix(_NETWORK) if within else attribute(marker, QUANTIZER)
