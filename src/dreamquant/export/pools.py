"""Writes adaptive average pools with bins of unequal places in a form that is small in a file."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from inspect import signature
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

_DIMENSIONS = {f"adaptive_avg_pool{count}d": count for count in (1, 2, 3)}
_INTERPOLATE = signature(F.interpolate)


class PlainPools(TorchFunctionMode):
    """Computes adaptive average pools along one dimension after the other.

    The exporter writes a pool whose bins do not divide the map as one gather for each place of a
    bin, with indices for every output value: they are 4 MB of ESPNetv2's file, whose weights take
    0.2 MB. Along one dimension, indices are as many as outputs of that dimension. Bins that divide
    the map stay: they are one AveragePool.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call ``func``, or the sum of gathers in place of a pool."""
        given = dict(kwargs or {})
        pool = _pool(func, args, given)
        if pool is None:
            return func(*args, **given)
        x, (before, sizes) = pool
        if all(whole % size == 0 for whole, size in zip(before, sizes, strict=True)):
            if len(sizes) < 3 or set(sizes) == {1}:
                return func(*args, **given)
            # The exporter knows no adaptive pool of three dimensions, except to one place.
            return F.avg_pool3d(x, [w // size for w, size in zip(before, sizes, strict=True)])
        for dim, size in enumerate(sizes, start=-len(sizes)):
            x = pooled(x, dim, size)
        return x


class _Pool(NamedTuple):
    """A pool: its input (B, C, ...), and the sides of the map before and after it."""

    x: Tensor
    sides: tuple[Sequence[int], Sequence[int]]


def _pool(func: Callable[..., Any], args: Sequence[Any], given: Mapping[str, Any]) -> _Pool | None:
    """The pool that a call computes; ``None`` of any other call."""
    if func is F.interpolate:
        resized = _INTERPOLATE.bind(*args, **given).arguments
        return _area(**resized) if resized.get("mode") == "area" else None
    count = _DIMENSIONS.get(getattr(func, "__name__", ""))
    if count is None:
        return None
    x = args[0] if args else given["input"]
    asked = args[1] if len(args) > 1 else given["output_size"]
    before = x.shape[-count:]
    sizes = [size or whole for size, whole in zip(_each(asked, count), before, strict=True)]
    return _Pool(x, (before, sizes))


def _area(input: Tensor, size: Any = None, scale_factor: Any = None, **_: Any) -> _Pool:
    """The pool that ``interpolate`` computes with ``mode="area"``; its arguments."""
    before = input.shape[2:]
    if size is not None:
        return _Pool(input, (before, _each(size, len(before))))
    factors = _each(scale_factor, len(before))
    sizes = [int(whole * factor) for whole, factor in zip(before, factors, strict=True)]
    return _Pool(input, (before, sizes))


def _each(value: Any, count: int) -> Sequence[Any]:
    return value if isinstance(value, tuple | list) else [value] * count


def pooled(x: Tensor, dim: int, size: int) -> Tensor:
    """Means of ``size`` bins along a dimension, as ``adaptive_avg_pool`` defines them.

    Args:
        x: of any shape; its size in ``dim`` is known.
        dim: the dimension, from the end.
        size: number of bins; bin i holds places floor(i * n / size) to ceil((i + 1) * n / size).
    """
    whole = x.shape[dim]
    ends = [(i * whole // size, -(-(i + 1) * whole // size)) for i in range(size)]
    widest = max(end - start for start, end in ends)
    parts = []
    for place in range(widest):
        index = torch.tensor([min(start + place, end - 1) for start, end in ends])
        weight = torch.tensor([(start + place < end) / (end - start) for start, end in ends])
        parts.append(x.index_select(dim, index) * weight.view(-1, *[1] * (-dim - 1)))
    return sum(parts[1:], start=parts[0])
