"""What follows each layer: its batch norm, and the sum that reads its output last."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.overrides import TorchFunctionMode

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


class Reads(TorchFunctionMode):
    """Records which tensors are read during a forward pass.

    Attributes:
        times: how often each tensor is read, by id.
        sums: ids of both operands of each sum.
        reader: the last operation that read each tensor, by id: the operation, the tensor, the
            result.
    """

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[Any] = []  # keeps every tensor alive, so that each id stays unique
        self.times: Counter[int] = Counter()
        self.overwritten: set[int] = set()
        self.sums: list[tuple[int, int]] = []
        self.reader: dict[int, tuple[Callable[..., Any], Tensor, Any]] = {}

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        pair = operands(func, args, kwargs)
        if pair is not None:
            self.sums.append((id(pair[0]), id(pair[1])))
        read = [x for x in _flat([args, list(kwargs.values())]) if isinstance(x, Tensor)]
        result = func(*args, **kwargs)
        if any(isinstance(each, Tensor) for each in _flat([result])):
            self.kept.append((read, result))
            self.times.update({id(x) for x in read} - self.overwritten)
            self.reader.update({id(x): (func, x, result) for x in read})
        if read and result is read[0]:
            self.overwritten.add(id(result))  # later reads see other values
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
    outputs: list[tuple[int, str]] = []
    normed: dict[
        int, tuple[str, int]
    ] = {}  # by id of a norm's input: the norm, and the id of its output

    def leave_layer(layer: nn.Module, _: Any, y: Tensor) -> None:
        outputs.append((id(y), names[layer]))

    def leave_norm(norm: nn.Module, inputs: tuple[Any, ...], y: Tensor) -> None:
        normed[id(inputs[0])] = (norms[norm], id(y))  # type: ignore[index]

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
    outputs: Sequence[tuple[int, str]],
    normed: dict[int, tuple[str, int]],
    reads: Reads,
) -> dict[str, Branch]:
    runs = Counter(name for _, name in outputs)
    norm_of: dict[str, str] = {}
    tips: dict[
        int, tuple[int, str]
    ] = {}  # by id of a tensor with one reader: the position and the name of its layer
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
