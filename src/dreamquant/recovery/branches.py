"""What follows each layer: its batch norm, and the sum that reads its output last."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.overrides import TorchFunctionMode

from dreamquant.networks.values import Value, value_of

_SUMS = frozenset({"add", "__add__", "__radd__"})
_SUMS_IN_PLACE = frozenset({"add_", "__iadd__"})


class Branch(NamedTuple):
    """The operations after one layer.

    Attributes:
        norm: name of the batch norm that is the only reader of the layer's output, or ``None``.
        summed: whether a sum is the only reader of the output (after the batch norm), and this
            layer is the last operand to be computed: the layer can then correct the error of the
            other operand too.
    """

    norm: str | None
    summed: bool


class Read(NamedTuple):
    """An operation that read a value.

    Attributes:
        func: the operation.
        read: the tensor that held the value.
        result: the tensor that the operation returned; in place, it is ``read``.
        value: what the result held then, ``None`` if it is no tensor.
    """

    func: Callable[..., Any]
    read: Tensor
    result: Any
    value: Value | None


class Reads(TorchFunctionMode):
    """Records which values are read during a forward pass.

    Attributes:
        times: how often each value is read.
        sums: both operands of each sum.
        reader: the last operation that read each value.
    """

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[Any] = []  # keeps every tensor alive, so that each value stays unique
        self.times: Counter[Value] = Counter()
        self.sums: list[tuple[Value, Value]] = []
        self.reader: dict[Value, Read] = {}

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        pair = operands(func, args, kwargs)
        if pair is not None:
            self.sums.append((value_of(pair[0]), value_of(pair[1])))
        read = [x for x in _flat([args, list(kwargs.values())]) if isinstance(x, Tensor)]
        values = {value_of(x): x for x in read}
        result = func(*args, **kwargs)
        if any(isinstance(each, Tensor) for each in _flat([result])):
            self.kept.append((read, result))
            self.times.update(values.keys())
            value = value_of(result) if isinstance(result, Tensor) else None
            self.reader.update({key: Read(func, x, result, value) for key, x in values.items()})
        return result


def operands(
    func: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]
) -> tuple[Tensor, Tensor] | None:
    """Both operands of a plain sum of two tensors of one shape; ``None`` for anything else."""
    name = getattr(func, "__name__", "")
    if name not in _SUMS | _SUMS_IN_PLACE or kwargs or len(args) != 2:
        return None
    left, right = args
    alike = isinstance(left, Tensor) and isinstance(right, Tensor) and left.shape == right.shape
    return (left, right) if alike else None


def is_in_place(func: Callable[..., Any]) -> bool:
    """Whether a sum overwrites its first operand."""
    return getattr(func, "__name__", "") in _SUMS_IN_PLACE


def _flat(values: Sequence[Any]) -> list[Any]:
    found: list[Any] = []
    for value in values:
        found.extend(_flat(value) if isinstance(value, (list, tuple)) else [value])
    return found


@torch.no_grad()
def find_branches(network: nn.Module, layers: Sequence[str], example: Tensor) -> dict[str, Branch]:
    """The operations after each of ``layers``, found by observing one forward pass.

    Args:
        network: in eval mode.
        layers: names of convolution and linear modules.
        example: normalised images (B, C, H, W).
    """
    names = {network.get_submodule(name): name for name in layers}
    norms = {m: name for name, m in network.named_modules() if isinstance(m, _BatchNorm)}
    outputs: list[tuple[Value, str]] = []
    normed: dict[Value, tuple[str, Value]] = {}  # by a norm's input: the norm and its output

    def leave_layer(layer: nn.Module, _: Any, y: Tensor) -> None:
        outputs.append((value_of(y), names[layer]))

    def leave_norm(norm: nn.Module, inputs: tuple[Any, ...], y: Tensor) -> None:
        normed[value_of(inputs[0])] = (norms[norm], value_of(y))  # type: ignore[index]

    handles = [layer.register_forward_hook(leave_layer) for layer in names]
    handles += [norm.register_forward_hook(leave_norm) for norm in norms]
    reads = Reads()
    try:
        with reads:
            network(example)
    finally:
        for handle in handles:
            handle.remove()
    return _branches(layers, outputs, normed, reads)


def _branches(
    layers: Sequence[str],
    outputs: Sequence[tuple[Value, str]],
    normed: dict[Value, tuple[str, Value]],
    reads: Reads,
) -> dict[str, Branch]:
    runs = Counter(name for _, name in outputs)
    norm_of: dict[str, str] = {}
    # By a value with one reader: the position and the name of its layer.
    tips: dict[Value, tuple[int, str]] = {}
    for turn, (tip, name) in enumerate(outputs):
        if runs[name] > 1 or reads.times[tip] != 1:
            continue
        if tip in normed:
            norm_of[name], tip = normed[tip]
        if reads.times[tip] == 1:
            tips[tip] = (turn, name)
    summed = {
        max(tips[key] for key in pair if key in tips)[1]
        for pair in reads.sums
        if any(key in tips for key in pair)
    }
    return {name: Branch(norm_of.get(name), name in summed) for name in layers}
