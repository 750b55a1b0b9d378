"""Units of reconstruction: blocks that end in a sum, and layers outside such blocks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from dreamquant.errors import MethodError
from dreamquant.quantization.operands import OperandsMode, calls_within
from dreamquant.quantization.outputs import ActivationOutputs
from dreamquant.quantization.placement import ActivationSites, Nowhere, OperandSites
from dreamquant.quantization.quantizers import ActivationQuantizer
from dreamquant.quantization.student import Student
from dreamquant.recovery.branches import operands


class Unit(NamedTuple):
    """A part of a network that is reconstructed as a whole.

    Attributes:
        name: of the module.
        layers: names of quantized layers inside, in the order executed.
    """

    name: str
    layers: tuple[str, ...]


class _Calls:
    """Records which modules run, which module contains which, and which compute sums."""

    def __init__(self) -> None:
        self.open: list[str] = []
        self.order: list[str] = []
        self.summing: set[str] = set()
        self.single: dict[str, bool] = {}  # one tensor in, one out

    def enter(self, name: str, _: nn.Module, inputs: Any, keywords: Any) -> None:
        self.open.append(name)
        self.order.append(name)
        self.single[name] = len(inputs) == 1 and isinstance(inputs[0], Tensor) and not keywords

    def leave(self, name: str, _: nn.Module, inputs: Any, result: Any) -> None:
        self.open.pop()
        self.single[name] = self.single[name] and isinstance(result, Tensor)


class _SumsInside(TorchFunctionMode):
    def __init__(self, calls: _Calls) -> None:
        super().__init__()
        self.calls = calls

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if operands(func, args, kwargs or {}) is not None and self.calls.open:
            self.calls.summing.add(self.calls.open[-1])
        return func(*args, **(kwargs or {}))


@torch.no_grad()
def find_units(
    network: nn.Module, layers: Sequence[str], example: Tensor, chosen: Sequence[str] = ()
) -> list[Unit]:
    """The units of a network, in the order executed.

    A block is a module with one input tensor and one output tensor that itself computes a sum of
    two tensors, as residual and transformer blocks do. Modules of the same class without a sum,
    such as inverted residuals with a stride, are blocks too. Each layer outside blocks is a unit.

    Args:
        network: in eval mode.
        layers: names of quantized layers.
        example: normalised images (B, C, H, W).
        chosen: patterns of module names; these modules replace the blocks that are found.

    Raises:
        MethodError: a pattern matches no module that could be a unit.
    """
    calls = _Calls()
    handles: list[Any] = []
    for name, module in network.named_modules():
        if name:
            enter = lambda *a, name=name: calls.enter(name, *a)  # noqa: E731
            leave = lambda *a, name=name: calls.leave(name, *a)  # noqa: E731
            handles.append(module.register_forward_pre_hook(enter, with_kwargs=True))
            handles.append(module.register_forward_hook(leave))
    try:
        with _SumsInside(calls):
            network(example)
    finally:
        for handle in handles:
            handle.remove()
    blocks = _chosen(calls, chosen) if chosen else _summing(network, calls)
    return _units(calls, layers, blocks)


def _eligible(calls: _Calls) -> list[str]:
    runs = Counter(calls.order)
    return [name for name, single in calls.single.items() if single and runs[name] == 1]


def _summing(network: nn.Module, calls: _Calls) -> list[str]:
    kinds = {type(network.get_submodule(name)) for name in calls.summing} - {nn.Sequential}
    return [name for name in _eligible(calls) if type(network.get_submodule(name)) in kinds]


def _chosen(calls: _Calls, patterns: Sequence[str]) -> list[str]:
    found = []
    for pattern in patterns:
        matching = [name for name in _eligible(calls) if fnmatchcase(name, pattern)]
        if not matching:
            raise MethodError(
                f"no module named {pattern!r} can be reconstructed as a whole",
                where="units",
                remedy="name modules that run once, with one input and one output tensor, such as "
                + ", ".join(_eligible(calls)[:4]),
            )
        found.extend(matching)
    return found


def _units(calls: _Calls, layers: Sequence[str], blocks: Sequence[str]) -> list[Unit]:
    runs = Counter(calls.order)
    inside: dict[str, list[str]] = {}
    for layer in sorted(layers, key=calls.order.index):
        # The outermost block counts: a block inside another block is a part of it.
        around = [block for block in blocks if layer.startswith(f"{block}.") or layer == block]
        if around or runs[layer] == 1:
            inside.setdefault(min(around, key=len, default=layer), []).append(layer)
    return [Unit(name, tuple(own)) for name, own in inside.items()]


class Quantizers(NamedTuple):
    """Activation quantizers that run inside a unit.

    Attributes:
        all: the quantizers in the order executed.
        context: while it is open, the student's unit runs with them outside the student.
    """

    all: list[ActivationQuantizer]
    context: Callable[[], AbstractContextManager[Any]]


@torch.no_grad()
def quantizers_of(student: Student, unit: Unit, example: Tensor) -> Quantizers:
    """The quantizers of a unit, found by one forward pass of the student."""
    sites = student.sites
    if isinstance(sites, OperandSites) and isinstance(sites.others, Nowhere):
        return Quantizers(_seen(student, unit, example), _operands_of(student, unit, example))
    if isinstance(sites, Nowhere):
        return Quantizers(_seen(student, unit, example), nullcontext)
    assert isinstance(sites, ActivationSites)  # require_scheme refuses all other schemes
    seen, outputs = _seen(student, unit, example), list(student.groups()["relu_outputs"])
    own = [index for index, quantizer in enumerate(outputs) if quantizer in seen]
    written = [sites.written[index] for index in own]

    def context() -> AbstractContextManager[Any]:
        modules = nn.ModuleList(outputs[index] for index in own)
        return ActivationOutputs(modules, written, sites.recognise)

    return Quantizers(seen, context)


def _seen(student: Student, unit: Unit, example: Tensor) -> list[ActivationQuantizer]:
    """The quantizers that run inside a unit, in the order executed."""
    module = student.network.get_submodule(unit.name)
    open_: list[bool] = [False]
    seen: list[ActivationQuantizer] = []
    handles = [
        module.register_forward_pre_hook(lambda *_: open_.__setitem__(0, True), prepend=True),
        module.register_forward_hook(lambda *_: open_.__setitem__(0, False)),
    ]
    for quantizer in student.activation_quantizers().values():
        handles.append(
            quantizer.register_forward_hook(lambda q, *_: seen.append(q) if open_[0] else None)
        )
    try:
        student(example)
    finally:
        for handle in handles:
            handle.remove()
    return seen


def _operands_of(
    student: Student, unit: Unit, example: Tensor
) -> Callable[[], AbstractContextManager[Any]]:
    """The context in which the operands of products inside a unit are quantized."""
    sites = student.sites
    assert isinstance(sites, OperandSites)
    layers = list(student.quantized_layers())
    inside = calls_within(student.network, layers, example, unit.name)
    calls, first = sites.calls[inside], sum(len(call) for call in sites.calls[: inside.start])
    operands = student.groups()["operands"]
    own = [operands[first + index] for index in range(sum(len(call) for call in calls))]
    return lambda: OperandsMode(nn.ModuleList(own), calls)
