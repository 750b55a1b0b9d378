"""Converts ONNX operators to PyTorch functions.

Shapes, axes, paddings and similar inputs must be constants; constant folding makes them so.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from dreamquant.networks.onnx_layers import (
    Built,
    Function,
    Node,
    UnsupportedError,
    batch_norm,
    convolution,
    gemm,
    layer_norm,
    product,
)
from dreamquant.networks.onnx_spatial import depth_to_space, pad, pool, resize


def build(node: Node) -> Built:
    """Convert a node to PyTorch.

    Raises:
        UnsupportedError: this operator, or this form of it, cannot be converted.
    """
    if node.kind in _SIMPLE:
        return Built(_SIMPLE[node.kind], None)
    if node.kind in _QUANTIZED:
        raise UnsupportedError("the file is already quantized; give the float file")
    if node.kind not in _BUILDERS:
        raise UnsupportedError("this operator is not supported")
    return _BUILDERS[node.kind](node)


def _clip(node: Node) -> Built:
    low, high = (
        node.get(name, None if (value := node.constant(index)) is None else float(value))
        for index, name in ((1, "min"), (2, "max"))
    )
    if low == 0 and (high is None or high > 1e30):
        return Built(F.relu)
    if low == 0 and high == 6:
        return Built(F.relu6)
    return Built(lambda x: torch.clamp(x, low, high))


class Reshape:
    """Reshape to a constant shape for one input; :meth:`settle` makes the batch axis free."""

    def __init__(self, sides: Sequence[int]) -> None:
        self._sides = list(sides)

    def __call__(self, x: Tensor) -> Tensor:
        """``x`` in the new shape."""
        return x.reshape([x.shape[i] if side == 0 else side for i, side in enumerate(self._sides)])

    def settle(self, one: Tensor, two: Tensor) -> None:
        """Find the axis that grows with the batch, from inputs for a batch of one and of two."""
        grown = [k for k, (a, b) in enumerate(zip(one.shape, two.shape, strict=True)) if a != b]
        if not grown:
            return
        self._sides = list(self(one).shape)
        # The batch is the outermost factor of its axis: the product of the axes before it is the
        # same before and after the reshape.
        outside = math.prod(one.shape[: grown[0]])
        fitting = [j for j in range(len(self._sides)) if math.prod(self._sides[:j]) == outside]
        if fitting:
            self._sides[fitting[0]] = -1


def _reshape(node: Node) -> Built:
    target = node.whole(1, "shape")
    if target is None or (node.get("allowzero", 0) and 0 in target):
        raise UnsupportedError("its shape has zeros")
    return Built(Reshape(target))


def _reduce(node: Node) -> Built:
    axes, keep = node.whole(1, "axes"), bool(node.get("keepdims", 1))
    function = _REDUCTIONS[node.kind]
    if axes is None:
        raise UnsupportedError("it also reduces the batch axis")
    return Built(lambda x: function(x, axes, keepdim=keep))


def _slice(node: Node) -> Built:
    starts, ends = node.whole(1, "starts"), node.whole(2, "ends")
    assert starts is not None
    assert ends is not None
    axes = node.whole(3, "axes") or list(range(len(starts)))
    steps = node.whole(4, "steps") or [1] * len(starts)
    if min(steps) < 1:
        raise UnsupportedError("backwards")

    def cut(x: Tensor) -> Tensor:
        index = [slice(None)] * x.dim()
        for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
            index[axis] = slice(start, end, step)
        return x[tuple(index)]

    return Built(cut)


def _split(node: Node) -> Built:
    parts, axis = node.whole(1, "split"), node.get("axis", 0)
    if parts is None:
        return Built(lambda x: x.tensor_split(node.outputs, axis))
    return Built(lambda x: x.split(parts, axis))


def _gather(node: Node) -> Built:
    index, axis = node.constant(1), node.get("axis", 0)
    assert index is not None
    if index.ndim == 0:
        return Built(lambda x: x.select(axis, int(index)))
    if index.ndim > 1:
        raise UnsupportedError("its indices have more than one dimension")
    chosen = [int(one) for one in index]
    return Built(lambda x: x.index_select(axis, torch.tensor(chosen, device=x.device)))


def _concat(node: Node) -> Built:
    axis = node.get("axis", 0)

    def concat(*parts: Tensor) -> Tensor:
        # A constant part, such as a class token, is the same for all images of a batch.
        batch = max(part.shape[0] for part in parts)
        return torch.cat([p.expand(batch, *p.shape[1:]) if axis else p for p in parts], axis)

    return Built(concat, None)


def _flatten(node: Node) -> Built:
    if (axis := node.get("axis", 1)) != 1:
        raise UnsupportedError(f"it starts from axis {axis}")
    return Built(lambda x: x.flatten(1))


def _squeeze(node: Node) -> Built:
    axes = node.whole(1, "axes")
    if axes is None:
        return Built(lambda x: x.reshape(x.shape[0], *(s for s in x.shape[1:] if s != 1)))
    return Built(lambda x: x.squeeze(tuple(axes)))


def _unsqueeze(node: Node) -> Built:
    axes = node.whole(1, "axes") or []

    def unsqueeze(x: Tensor) -> Tensor:
        for axis in sorted(a % (x.dim() + len(axes)) for a in axes):
            x = x.unsqueeze(axis)
        return x

    return Built(unsqueeze)


def _softmax(node: Node) -> Built:
    axis = node.get("axis", -1 if node.opset >= 13 else 1)
    function = F.softmax if node.kind == "Softmax" else F.log_softmax
    if node.opset >= 13 or axis == -1:
        return Built(lambda x: function(x, axis))
    # This axis and all later axes are treated as one.
    return Built(lambda x: function(x.flatten(axis), -1).reshape(x.shape))


def _gelu(node: Node) -> Built:
    return Built(lambda x: F.gelu(x, approximate=node.get("approximate", "none")))


def _leaky(node: Node) -> Built:
    return Built(lambda x: F.leaky_relu(x, node.get("alpha", 0.01)))


def _hard_sigmoid(node: Node) -> Built:
    slope, offset = node.get("alpha", 0.2), node.get("beta", 0.5)
    return Built(lambda x: torch.clamp(slope * x + offset, 0, 1))


def _transpose(node: Node) -> Built:
    order = node.get("perm")
    return Built(lambda x: x.permute(order or list(range(x.dim()))[::-1]))


def _cast(node: Node) -> Built:
    if node.get("to") not in (1, 10, 11, 16):  # float, float16, double, bfloat16
        raise UnsupportedError("it casts to a type that is not float")
    return Built(lambda x: x.float())


def _prelu(x: Tensor, slope: Tensor) -> Tensor:
    return F.prelu(x, slope.reshape(-1))


def _all_of(function: Function) -> Function:
    def combined(first: Tensor, *others: Tensor) -> Tensor:
        for other in others:
            first = function(first, other)
        return first

    return combined


_QUANTIZED = frozenset(
    {"QuantizeLinear", "DequantizeLinear", "QLinearConv", "ConvInteger", "DynamicQuantizeLinear"}
)
_SIMPLE: dict[str, Function] = {
    "Relu": F.relu,
    "PRelu": _prelu,
    "Sigmoid": torch.sigmoid,
    "Tanh": torch.tanh,
    "Erf": torch.erf,
    "Exp": torch.exp,
    "Log": torch.log,
    "Sqrt": torch.sqrt,
    "Abs": torch.abs,
    "Neg": torch.neg,
    "Reciprocal": torch.reciprocal,
    "Softplus": F.softplus,
    "HardSwish": F.hardswish,
    "Mish": F.mish,
    "Identity": lambda x: x,
    "Add": torch.add,
    "Sub": torch.sub,
    "Mul": torch.mul,
    "Div": torch.div,
    "Pow": torch.pow,
    "Max": _all_of(torch.maximum),
    "Min": _all_of(torch.minimum),
    "Sum": _all_of(torch.add),
    "GlobalAveragePool": lambda x: x.mean(list(range(2, x.dim())), keepdim=True),
    "GlobalMaxPool": lambda x: x.amax(list(range(2, x.dim())), keepdim=True),
}
_REDUCTIONS: dict[str, Function] = {
    "ReduceMean": torch.mean,
    "ReduceSum": torch.sum,
    "ReduceMax": torch.amax,
    "ReduceMin": torch.amin,
}
_BUILDERS: dict[str, Callable[[Node], Built]] = {
    "Conv": convolution,
    "ConvTranspose": convolution,
    "Gemm": gemm,
    "MatMul": product,
    "BatchNormalization": batch_norm,
    "LayerNormalization": layer_norm,
    "Clip": _clip,
    "MaxPool": pool,
    "AveragePool": pool,
    "Reshape": _reshape,
    "Pad": pad,
    **dict.fromkeys(_REDUCTIONS, _reduce),
    "Resize": resize,
    "Upsample": resize,
    "Slice": _slice,
    "Split": _split,
    "Gather": _gather,
    "Concat": _concat,
    "Flatten": _flatten,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Softmax": _softmax,
    "LogSoftmax": _softmax,
    "Gelu": _gelu,
    "LeakyRelu": _leaky,
    "HardSigmoid": _hard_sigmoid,
    "Transpose": _transpose,
    "Cast": _cast,
    "Dropout": lambda _: Built(lambda x: x),
    "DepthToSpace": depth_to_space,
}
