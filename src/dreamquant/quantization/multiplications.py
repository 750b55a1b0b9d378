"""Counts the multiplications of a forward pass where they are computed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import prod
from typing import Any, cast

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry, shape_wrapper

Shape = tuple[int, ...]


def _recurrent(x: Shape, first: Shape, second: Shape, *_: Any, **__: Any) -> int:
    """One layer in one direction: each element of a sequence meets each weight once."""
    steps = prod(x[:-1])
    return 2 * steps * (prod(first) + prod(second))


def _attention(q: Shape, k: Shape, v: Shape, *_: Any, **__: Any) -> int:
    return 2 * prod(q) * k[-2] + 2 * prod(q[:-1]) * prod(v[-2:])


def _deformed(_: Shape, weight: Shape, *__: Any, out_shape: Shape, **___: Any) -> int:
    return 2 * out_shape[0] * prod(out_shape[2:]) * prod(weight)


def _trilinear(first: Shape, weight: Shape, *_: Any, **__: Any) -> int:
    return 2 * prod(first[:-1]) * prod(weight)


def _formulas() -> dict[Any, Callable[..., int]]:
    """PyTorch's formulas, which count additions too, and formulas of operations that it lacks."""
    known: dict[Any, Callable[..., int]] = {
        torch.ops.aten.mkldnn_rnn_layer: _recurrent,
        torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention,
        torch.ops.aten._trilinear: _trilinear,
    }
    if hasattr(torch.ops.torchvision, "deform_conv2d"):
        known[torch.ops.torchvision.deform_conv2d] = _deformed
    of_shapes = cast(Callable[..., Callable[..., int]], shape_wrapper)
    return flop_registry | {operation: of_shapes(each) for operation, each in known.items()}


class _Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    # Not PyTorch's own mode, because that imports its compiler, which takes seconds.
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.formulas, self.count = _formulas(), 0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # otherwise the compiler would be imported

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        formula = self.formulas.get(func._overloadpacket)
        if formula is not None:
            self.count += formula(*args, **(kwargs or {}), out_val=result) // 2
        return result


@contextmanager
def counting_multiplications() -> Iterator[Callable[[], int]]:
    """Count multiplications of convolutions and matrix products; yields a function for the number.

    Multiplications inside scripted modules, recurrent layers and attention are counted too.
    Element-wise products are not, nor are operations of extensions that PyTorch does not know.
    """
    with _Counter() as counter:
        yield lambda: counter.count
