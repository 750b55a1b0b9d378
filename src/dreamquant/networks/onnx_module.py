"""A module that runs the nodes of an ONNX graph one after another."""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dreamquant.errors import NetworkError
from dreamquant.networks.onnx_layers import Built, Function, Node, UnsupportedError
from dreamquant.networks.onnx_operators import Reshape, build
from dreamquant.networks.zoo import one_line

_LARGEST = 2**20  # values of a constant that is computed from others


def part(name: str) -> ModuleType:
    """Import a package that is needed to read ONNX files.

    Raises:
        NetworkError: the package is missing or does not load.
    """
    try:
        return importlib.import_module(name)
    except Exception as error:  # code of another project may raise anything
        raise NetworkError(
            f"{name} cannot be used: {one_line(error)}",
            where="an ONNX file as network",
            remedy="pip install 'dreamquant[export]'",
        ) from error


@dataclass(frozen=True)
class Step:
    """A node that runs: the name of a layer, or a function."""

    run: str | Function
    before: Function | None
    reads: tuple[str, ...]
    writes: tuple[str, ...]


class OnnxModule(nn.Module):
    """Runs the nodes of a graph one after another; layers are named after their weights."""

    def __init__(self, entry: str, results: tuple[str, ...], *, channels_last: bool) -> None:
        super().__init__()
        self._entry, self._results, self._channels_last = entry, results, channels_last
        self._steps: list[Step] = []
        self._constants: dict[str, str] = {}

    def add(self, step: Step) -> None:
        """Add ``step`` after the earlier ones."""
        self._steps.append(step)

    def remember(self, name: str, value: Tensor) -> None:
        """Store a constant that nodes read."""
        self._constants[name] = buffer = f"constant_{len(self._constants)}"
        self.register_buffer(buffer, value)

    def forward(self, x: Tensor) -> Any:
        """The output, or a tuple of outputs."""
        values = self._values(x)
        for step in self._steps:
            self._run(step, values)
        results = tuple(values[name] for name in self._results)
        return results if len(results) > 1 else results[0]

    def settle(self, images: Tensor) -> None:
        """Make the batch size free, by comparing runs with one and with two inputs."""
        one, two = self._values(images[:1]), self._values(images[:2])
        for step in self._steps:
            if isinstance(step.run, Reshape):
                step.run.settle(one[step.reads[0]], two[step.reads[0]])
            self._run(step, one)
            self._run(step, two)

    def _values(self, x: Tensor) -> dict[str, Tensor]:
        values = {name: getattr(self, buffer) for name, buffer in self._constants.items()}
        return values | {self._entry: x.movedim(1, -1) if self._channels_last else x}

    def _run(self, step: Step, values: dict[str, Tensor]) -> None:
        run = self.get_submodule(step.run) if isinstance(step.run, str) else step.run
        first, *others = (values[name] for name in step.reads)
        found = run(first if step.before is None else step.before(first), *others)
        several = found if isinstance(found, tuple | list) else (found,)
        values.update(zip(step.writes, several, strict=False))


def converted(model: Any, entry: str, *, channels_last: bool) -> tuple[OnnxModule, list[str]]:
    """Convert the graph of ``model``; also returns a message for each node that failed.

    Args:
        model: the ONNX model for one input, with constants folded.
        entry: name of the input.
        channels_last: whether channels are last in the file; in the module they are first.
    """
    to_array = part("onnx.numpy_helper").to_array
    constants = {tensor.name: to_array(tensor) for tensor in model.graph.initializer}
    results = tuple(output.name for output in model.graph.output)
    module = OnnxModule(entry, results, channels_last=channels_last)
    opset = max(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    refused: list[str] = []
    for position, node in enumerate(model.graph.node):
        if node.op_type == "Constant":
            constants[node.output[0]] = to_array(node.attribute[0].t)
            continue
        try:
            if node.input and all(name in constants for name in node.input if name):
                constants.update(_evaluated(node, constants, opset))
            else:
                _add(module, node, constants, opset, position)
        except UnsupportedError as error:
            refused.append(f"{node.op_type} {node.name or position}: {error}")
        except Exception as error:  # attributes of wrong types or weights of wrong shapes
            refused.append(f"{node.op_type} {node.name or position}: {one_line(error)}")
    return module, refused


def _evaluated(
    node: Any, constants: Mapping[str, NDArray[Any]], opset: int
) -> dict[str, NDArray[Any]]:
    """The outputs of a node that reads only constants."""
    if node.op_type == "ConstantOfShape" and constants[node.input[0]].prod() > _LARGEST:
        raise UnsupportedError("its output is too large")
    helper, reference = part("onnx.helper"), part("onnx.reference")
    feed = {name: constants[name] for name in node.input if name}
    entries = [
        helper.make_tensor_value_info(
            name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape
        )
        for name, value in feed.items()
    ]
    results = [part("onnx").ValueInfoProto(name=name) for name in node.output]
    graph = helper.make_graph([node], "constants", entries, results)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    found = reference.ReferenceEvaluator(model).run(None, feed)
    return dict(zip(node.output, found, strict=True))


def _add(
    module: OnnxModule, node: Any, constants: Mapping[str, NDArray[Any]], opset: int, position: int
) -> None:
    if node.domain not in ("", "ai.onnx"):
        raise UnsupportedError(f"it is from the domain {node.domain}")
    get = part("onnx.helper").get_attribute_value
    attributes = {one.name: _plain(get(one)) for one in node.attribute}
    inputs = list(node.input)
    built = build(Node(node.op_type, attributes, inputs, constants, opset, len(node.output)))
    reads = tuple(name for name in inputs[: built.reads] if name)
    for name in reads:
        if name in constants and name not in module._constants:
            module.remember(name, _tensor(constants[name]))
    run = _place(module, built, node, position)
    module.add(Step(run, built.before, reads, tuple(node.output)))


def _plain(value: Any) -> Any:
    return value.decode() if isinstance(value, bytes) else value


def _tensor(value: NDArray[Any]) -> Tensor:
    kind = np.float32 if value.dtype.kind == "f" else value.dtype
    return torch.from_numpy(np.array(value, kind))


def _place(module: OnnxModule, built: Built, node: Any, position: int) -> str | Function:
    """Add a layer under the name of its weight, such as ``layer1.0.conv1``, or of its node."""
    if not isinstance(built.run, nn.Module):
        return built.run
    weight = node.input[1].removesuffix(".weight")
    named = re.fullmatch(r"[\w.]+", weight) and node.input[1].endswith(".weight")
    text = weight if named else re.sub(r"\W+", "_", node.name or f"{node.op_type}_{position}")
    parts = [part for part in text.split(".") if part] or [f"{node.op_type}_{position}"]
    holder: nn.Module = module
    for part in parts[:-1]:
        if part not in holder._modules:
            holder.add_module(part, nn.Module())
        holder = holder.get_submodule(part)
    name = parts[-1] if not hasattr(holder, parts[-1]) else f"{parts[-1]}_{position}"
    holder.add_module(name, built.run)
    return ".".join((*parts[:-1], name))
