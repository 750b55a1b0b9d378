"""Both operands of every matrix product that is no layer's own, and inputs of GELU, quantized."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from dreamquant.errors import NetworkError
from dreamquant.networks.attention import dot_product_attention
from dreamquant.networks.products import factors, replaced

_ATTENTION = 4  # queries, keys, values, and what softmax makes of the first two


class _Operands(TorchFunctionMode, ABC):
    """Recognises calls that have operands to quantize."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name == "scaled_dot_product_attention":
            return dot_product_attention(self.next(_ATTENTION), *args, **kwargs)
        if name == "gelu":
            return func(self.next(1)[0](args[0]), *args[1:], **kwargs)
        pair = factors(func, args, kwargs)
        if pair is None:
            return func(*args, **kwargs)
        # One that is multiplied by itself is quantized once.
        distinct = list({id(x): x for x in pair}.values())
        quantizers = self.product(distinct)
        changed = {id(x): q(x) for x, q in zip(distinct, quantizers, strict=False)}
        args, kwargs = replaced(args, kwargs, changed)
        return func(*args, **kwargs)

    @abstractmethod
    def next(self, count: int) -> Sequence[Callable[[Tensor], Tensor]]:
        """The quantizers of a call that always has so many."""

    @abstractmethod
    def product(self, operands: list[Tensor]) -> Sequence[Callable[[Tensor], Tensor]]:
        """The quantizers of a product; none where a layer quantizes its own."""


class _Survey(_Operands):
    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[bool, ...]] = []
        self.within = 0
        self.probabilities: list[Tensor] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = super().__torch_function__(func, types, args, kwargs)
        if getattr(func, "__name__", "") == "softmax":
            self.probabilities.append(result)
        return result

    def next(self, count: int) -> Sequence[Callable[[Tensor], Tensor]]:
        self.calls.append((*[False] * (count - 1), count == _ATTENTION))
        return [nn.Identity()] * count

    def product(self, operands: list[Tensor]) -> Sequence[Callable[[Tensor], Tensor]]:
        known = {id(x) for x in self.probabilities}
        own = [] if self.within else operands
        self.calls.append(tuple(id(x) in known for x in own))
        return [nn.Identity()] * len(own)

    @contextmanager
    def entering(self, layers: Sequence[nn.Module]) -> Iterator[None]:
        """Know when a layer runs, whose product is its own."""

        def enter(change: int) -> None:
            self.within += change

        handles = [layer.register_forward_pre_hook(lambda *_: enter(1)) for layer in layers]
        handles += [layer.register_forward_hook(lambda *_: enter(-1)) for layer in layers]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


@torch.no_grad()
def survey(
    network: nn.Module, layers: Sequence[str], example: Tensor
) -> tuple[tuple[bool, ...], ...]:
    """Which operands are quantized at each call of a forward pass that may have some.

    Args:
        network: in eval mode.
        layers: names of those that quantize their own input and weight.
        example: normalised inputs (B, ...).

    Returns:
        For each call, and each operand to quantize there, whether it is what softmax gave.
    """
    mode = _Survey()
    with mode.entering([network.get_submodule(name) for name in layers]), mode:
        network(example)
    return tuple(mode.calls)


@torch.no_grad()
def calls_within(network: nn.Module, layers: Sequence[str], example: Tensor, part: str) -> slice:
    """Which of the calls that :func:`survey` finds run inside the module ``part``.

    It must run once.
    """
    mode = _Survey()
    marks: list[int] = []
    module = network.get_submodule(part)
    mark = lambda *_: marks.append(len(mode.calls))  # noqa: E731
    handles = [module.register_forward_pre_hook(mark), module.register_forward_hook(mark)]
    try:
        with mode.entering([network.get_submodule(name) for name in layers]), mode:
            network(example)
    finally:
        for handle in handles:
            handle.remove()
    return slice(*marks)


class OperandsMode(_Operands):
    """Quantizes operands with the next quantizers in the order executed.

    Args:
        quantizers: as many as ``calls`` has in all.
        calls: see :func:`survey`.

    Raises:
        NetworkError: the forward pass runs other products than the one that was surveyed.
    """

    def __init__(self, quantizers: nn.ModuleList, calls: Sequence[Sequence[bool]]) -> None:
        super().__init__()
        self.quantizers, self.calls = quantizers, calls
        self.call = self.used = 0

    def next(self, count: int) -> Sequence[Callable[[Tensor], Tensor]]:
        """The next quantizers."""
        if self.call == len(self.calls) or len(self.calls[self.call]) not in (0, count):
            raise self._miscounted()
        count = len(self.calls[self.call])
        self.call += 1
        self.used += count
        return [self.quantizers[i] for i in range(self.used - count, self.used)]

    def product(self, operands: list[Tensor]) -> Sequence[Callable[[Tensor], Tensor]]:
        """Likewise, or none."""
        return self.next(len(operands))

    def __exit__(self, *exception: Any) -> None:
        """Check that every quantizer was used."""
        super().__exit__(*exception)  # type: ignore[no-untyped-call]
        if exception[0] is None and self.call != len(self.calls):
            raise self._miscounted()

    def _miscounted(self) -> NetworkError:
        return NetworkError(
            f"a forward pass ran other products than the {len(self.calls)} surveyed",
            where="placement operands",
            remedy="use --placement layer-input for networks whose forward pass varies",
        )
