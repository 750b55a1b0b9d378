"""Converts ONNX operators with weights to PyTorch layers, and reads attributes of nodes.

The specification is https://onnx.ai/onnx/operators/.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

Function = Callable[..., Any]
_CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
_TRANSPOSED = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}


class UnsupportedError(Exception):
    """A node cannot be converted; the message gives the reason."""


@dataclass(frozen=True)
class Node:
    """A node of the graph.

    Attributes:
        kind: name of the operator.
        attributes: attributes by name, as plain values.
        inputs: names of the inputs; ``""`` for an input that is left out.
        constants: constants of the whole graph, by name.
        opset: version of the operators.
        outputs: number of outputs.
    """

    kind: str
    attributes: Mapping[str, Any]
    inputs: Sequence[str]
    constants: Mapping[str, NDArray[Any]]
    opset: int
    outputs: int

    def constant(self, index: int) -> NDArray[Any] | None:
        """The value of a constant input; ``None`` if it is left out.

        Raises:
            UnsupportedError: the input is computed.
        """
        if index >= len(self.inputs) or not self.inputs[index]:
            return None
        if self.inputs[index] not in self.constants:
            raise UnsupportedError(f"its input {index} is computed, not constant")
        return self.constants[self.inputs[index]]

    def weight(self, index: int) -> Tensor | None:
        """The value of a constant input as float32; ``None`` if it is left out."""
        value = self.constant(index)
        return None if value is None else torch.from_numpy(np.array(value, np.float32))

    def whole(self, index: int, attribute: str) -> list[int] | None:
        """Integers that are an attribute in older versions and an input in newer ones."""
        if attribute in self.attributes:
            return whole_numbers(self.attributes[attribute])
        value = self.constant(index)
        return None if value is None else [int(one) for one in value.reshape(-1)]

    def get(self, name: str, default: Any = None) -> Any:
        """An attribute."""
        return self.attributes.get(name, default)


@dataclass(frozen=True)
class Built:
    """A node converted to PyTorch.

    Attributes:
        run: a layer or a function.
        reads: the number of inputs that it takes, from the first one; ``None`` for all.
        before: a function that is applied to the first input before the layer.
    """

    run: nn.Module | Function
    reads: int | None = 1
    before: Function | None = None


def convolution(node: Node) -> Built:
    """Conv and ConvTranspose."""
    weight, bias = node.weight(1), node.weight(2)
    assert weight is not None
    dims, groups = weight.dim() - 2, node.get("group", 1)
    stride, dilation = (
        whole_numbers(node.get(name, [1] * dims)) for name in ("strides", "dilations")
    )
    pads = pads_of(node, dims)
    transposed = node.kind == "ConvTranspose"
    kinds: Mapping[int, Any] = _TRANSPOSED if transposed else _CONVOLUTIONS
    if dims not in kinds:
        raise UnsupportedError(f"{dims} dimensions")
    channels = (weight.shape[1], weight.shape[0]) if not transposed else weight.shape[:2]
    inside = channels[0] * (1 if transposed else groups)
    outside = channels[1] * (groups if transposed else 1)
    symmetric = pads is not None and pads[:dims] == pads[dims:]
    options: dict[str, Any] = (
        {"output_padding": node.get("output_padding", 0)} if transposed else {}
    )
    if transposed and not symmetric:
        raise UnsupportedError("its padding differs between the sides")
    layer = kinds[dims](
        inside,
        outside,
        tuple(weight.shape[2:]),
        tuple(stride),
        padding=tuple(pads[:dims]) if symmetric and pads else 0,
        dilation=tuple(dilation),
        groups=groups,
        bias=bias is not None,
        **options,
    )
    layer.load_state_dict({"weight": weight} | ({} if bias is None else {"bias": bias}))
    if symmetric:
        return Built(layer)
    if pads is None:
        return Built(layer, before=same_padding(node, list(weight.shape[2:]), stride, dilation))
    return Built(layer, before=lambda x: F.pad(x, torch_pads(pads)))


def same_padding(
    node: Node, kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int]
) -> Function:
    """Pad for an output of ceil(size / stride); an odd row goes to the end, or to the start."""
    upper = node.get("auto_pad") == "SAME_UPPER"

    def pad(x: Tensor, value: float = 0.0) -> Tensor:
        sides: list[int] = []
        for size, k, s, d in zip(x.shape[2:], kernel, stride, dilation, strict=True):
            whole = max((math.ceil(size / s) - 1) * s + (k - 1) * d + 1 - size, 0)
            small, large = whole // 2, whole - whole // 2
            sides = [*((small, large) if upper else (large, small)), *sides]
        return F.pad(x, sides, value=value)

    return pad


def pads_of(node: Node, dims: int) -> list[int] | None:
    """Padding of all starts, then of all ends; ``None`` if it depends on the size."""
    if node.get("auto_pad", "NOTSET") in ("SAME_UPPER", "SAME_LOWER"):
        return None
    return whole_numbers(node.get("pads", [0] * (2 * dims)))


def torch_pads(pads: Sequence[int]) -> list[int]:
    """The order of :func:`torch.nn.functional.pad`: last dimension first, start and end."""
    half = len(pads) // 2
    pairs = reversed(list(zip(pads[:half], pads[half:], strict=True)))
    return [side for pair in pairs for side in pair]


def _linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    layer.load_state_dict({"weight": weight} | ({} if bias is None else {"bias": bias}))
    return layer


def gemm(node: Node) -> Built:
    """Gemm: a linear layer; factors alpha and beta are multiplied into its weights."""
    weight, bias = node.weight(1), node.weight(2)
    assert weight is not None
    if node.get("transA", 0):
        raise UnsupportedError("its first input is transposed")
    weight = weight if node.get("transB", 0) else weight.T
    if bias is not None:
        bias = bias.reshape(-1).expand(len(weight)) * node.get("beta", 1.0)
    return Built(_linear(weight * node.get("alpha", 1.0), bias))


def product(node: Node) -> Built:
    """MatMul with a constant matrix: a linear layer."""
    value = node.constants.get(node.inputs[1])
    if value is None or value.ndim != 2:
        return Built(torch.matmul, None)
    return Built(_linear(torch.from_numpy(np.array(value, np.float32)).T, None))


def batch_norm(node: Node) -> Built:
    """BatchNormalization."""
    tensors = [node.weight(index) for index in range(1, 5)]
    names = ("weight", "bias", "running_mean", "running_var")
    assert tensors[0] is not None
    layer = _AnyBatchNorm(len(tensors[0]), eps=node.get("epsilon", 1e-5))
    layer.load_state_dict(dict(zip(names, tensors, strict=True)), strict=False)
    return Built(layer)


class _AnyBatchNorm(nn.BatchNorm2d):
    """A batch norm for inputs of any rank, because the node does not say the rank."""

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            raise ValueError(f"{input.dim()} dimensions have no channels")


def layer_norm(node: Node) -> Built:
    """LayerNormalization."""
    weight, bias = node.weight(1), node.weight(2)
    assert weight is not None
    layer = nn.LayerNorm(weight.shape, node.get("epsilon", 1e-5), bias=bias is not None)
    layer.load_state_dict({"weight": weight} | ({} if bias is None else {"bias": bias}))
    return Built(layer)


def whole_numbers(value: Any) -> list[int]:
    """The integers as a list."""
    return [int(one) for one in value]
