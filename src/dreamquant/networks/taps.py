"""Taps: what a forward pass computes inside, read without touching the network."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

Watched = TypeVar("Watched", bound=nn.Module)


class ChannelStatistics(NamedTuple):
    """Mean and biased variance per channel, each (F,)."""

    mean: Tensor
    var: Tensor


class _ChannelMoments(torch.autograd.Function):
    # torch.var_mean takes 2.9 ms where these passes take 0.2 (32 x 16 x 32 x 32, one core), and its
    # derivative is a chain of four.

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        over = (0, *range(2, x.dim()))
        # Half-precision inputs are summed, and their statistics kept, in float32.
        mean = x.mean(over, dtype=torch.promote_types(x.dtype, torch.float32))
        ctx.save_for_backward(x, mean)
        return mean, (x - _per_channel(mean, x)).square_().mean(over)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (to_mean, to_var), (x, mean) = gradients, ctx.saved_tensors
        count = x.numel() // x.shape[1]
        slope = 2 * to_var / count
        offset = to_mean / count - slope * mean
        return torch.addcmul(_per_channel(offset, x), x, _per_channel(slope, x)).to(x.dtype)


def channel_statistics(x: Tensor) -> ChannelStatistics:
    """Mean and biased variance of each channel of ``x`` (B, F, ...), float32, with a gradient."""
    return ChannelStatistics(*_ChannelMoments.apply(x))


def _per_channel(values: Tensor, x: Tensor) -> Tensor:
    return values.view(-1, *[1] * (x.dim() - 2))


@contextmanager
def entering(
    modules: Iterable[Watched], look: Callable[[Watched, tuple[Any, ...]], None]
) -> Iterator[None]:
    """Let ``look`` see each module and its positional inputs, before it runs."""
    handles = [module.register_forward_pre_hook(look) for module in modules]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def batch_norm_inputs(norms: Sequence[nn.Module]) -> Iterator[list[ChannelStatistics]]:
    """Collect the batch statistics of what enters each batch norm during a forward pass.

    Args:
        norms: batch norm modules; those the forward pass does not run add nothing.

    Yields:
        A list that fills in the order executed, with gradient to the images.
    """
    collected: list[ChannelStatistics] = []

    def collect(_: nn.Module, inputs: tuple[Any, ...]) -> None:
        collected.append(channel_statistics(inputs[0]))

    with entering(norms, collect):
        yield collected


@contextmanager
def execution_order(modules: Sequence[nn.Module]) -> Iterator[list[nn.Module]]:
    """Collect which of ``modules`` a forward pass runs, in order, once per run."""
    executed: list[nn.Module] = []
    with entering(modules, lambda module, _: executed.append(module)):
        yield executed


@contextmanager
def batch_statistics(norms: Sequence[nn.Module]) -> Iterator[None]:
    """Let batch norms normalise by the batch during a forward pass, as in training.

    They also update their running statistics: call the network functionally, with copies of its
    buffers, to keep those it has.
    """
    before = [norm.training for norm in norms]
    for norm in norms:
        norm.training = True
    try:
        yield
    finally:
        for norm, training in zip(norms, before, strict=True):
            norm.training = training


def _hardtanh_is_relu6(arguments: Sequence[Any], keywords: Mapping[str, Any]) -> bool:
    low = arguments[1] if len(arguments) > 1 else keywords.get("min_val", -1.0)
    return bool(low == 0)


_ALWAYS_RELU: frozenset[Callable[..., Any]] = frozenset(
    {
        F.relu,
        F.relu_,
        F.relu6,
        torch.relu,
        torch.relu_,
        Tensor.relu,
        Tensor.relu_,
    }
)
_HARDTANH: frozenset[Callable[..., Any]] = frozenset({F.hardtanh, F.hardtanh_})


def is_relu(
    function: Callable[..., Any], arguments: Sequence[Any], keywords: Mapping[str, Any]
) -> bool:
    """Whether a torch call is a ReLU or ReLU6, however it is spelled."""
    if function in _HARDTANH:
        return _hardtanh_is_relu6(arguments, keywords)
    return function in _ALWAYS_RELU


class LastReluMap(TorchFunctionMode):
    """Keeps the last feature map (B, F, h, w) that leaves a ReLU during a forward pass.

    Attributes:
        found: the map, with its graph; ``None`` before the first.
    """

    def __init__(self) -> None:
        super().__init__()
        self.found: Tensor | None = None

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run ``func``; if it is a ReLU of a map, keep its result."""
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if is_relu(func, args, kwargs) and result.dim() == 4:
            self.found = result
        return result
