"""Taps: what a forward pass computes inside, read without touching the network.

A tap is a value (a frozen dataclass). ``require`` refuses a network that lacks what the tap reads,
before a run begins; ``watch`` collects it during a forward pass; ``value`` is what a term gets.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Any, Generic, NamedTuple, TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrize import ParametrizationList
from torch.overrides import TorchFunctionMode

from dreamquant import distributed
from dreamquant.errors import NetworkError
from dreamquant.networks.probe import batch_norms

Watched = TypeVar("Watched", bound=nn.Module)
Value = TypeVar("Value")
Collected = Callable[[], tuple[Tensor, ...]]


class Tap(ABC, Generic[Value]):
    """Something inside a network that terms read; a frozen dataclass: equal taps are one."""

    @abstractmethod
    def require(self, network: nn.Module, example: Tensor) -> None:
        """Refuse a network that has nothing to read here.

        Args:
            network: in eval mode.
            example: normalised images (B, C, H, W).

        Raises:
            NetworkError: it says in words what the network lacks.
        """

    @abstractmethod
    def watch(self, network: nn.Module) -> AbstractContextManager[Collected]:
        """Collect during one forward pass; call what it yields afterwards for the tensors."""

    @abstractmethod
    def value(self, tensors: Sequence[Tensor]) -> Value:
        """What a term gets, made of the tensors that were collected."""


@dataclass(frozen=True)
class Output(Tap[Tensor]):
    """The network's output (B, classes)."""

    def require(self, network: nn.Module, example: Tensor) -> None:
        """Every network has one."""

    def watch(self, network: nn.Module) -> AbstractContextManager[Collected]:
        """Nothing to collect: the forward pass returns it."""
        return nullcontext(lambda: ())

    def value(self, tensors: Sequence[Tensor]) -> Tensor:
        """The output, which a view gives by itself."""
        return tensors[0]


class ChannelStatistics(NamedTuple):
    """Mean and biased variance per channel, each (F,)."""

    mean: Tensor
    var: Tensor


def full_precision(x: Tensor) -> Tensor:
    """Half precision as float32; float32 and float64 as they are."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


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
def unseen() -> Iterator[None]:
    """Hide what is computed within from modes: it is no part of the network that they follow."""
    with torch._C.DisableTorchFunction():
        yield


class Layer(NamedTuple):
    """One batch norm's share of :class:`Statistics`, F its channels."""

    mean: Tensor
    var: Tensor
    stored_mean: Tensor
    stored_var: Tensor


@dataclass(frozen=True)
class Statistics:
    """What entered the batch norms, beside what they remember of the training data.

    The vectors hold the channels of all layers, in the order executed.

    Attributes:
        mean: (F,) of the batch; (B, F) of each image where the tap asks for images apart.
        var: biased variance, likewise.
        stored_mean: (F,) what the network remembers.
        stored_var: (F,) likewise.
        sizes: channels of each layer.
    """

    mean: Tensor
    var: Tensor
    stored_mean: Tensor
    stored_var: Tensor
    sizes: tuple[int, ...]

    @cached_property
    def weight(self) -> Tensor:
        """(F,) such that a weighted sum averages over a layer's channels, then over layers."""
        layers = len(self.sizes)
        return torch.cat([self.stored_mean.new_full((n,), 1 / (n * layers)) for n in self.sizes])

    @property
    def layers(self) -> list[Layer]:
        """The same, layer by layer."""
        vectors = (self.mean, self.var, self.stored_mean, self.stored_var)
        return [
            Layer(*parts)
            for parts in zip(
                *(torch.split(v, list(self.sizes), dim=-1) for v in vectors), strict=True
            )
        ]


@dataclass(frozen=True)
class BatchNormInputs(Tap[Statistics]):
    """Statistics of what enters each batch norm; its value is a :class:`Statistics`.

    Attributes:
        per_image: keep images apart (ZeroQ) in place of the whole batch's statistics.
    """

    per_image: bool = False

    def require(self, network: nn.Module, example: Tensor) -> None:
        """Refuse a network whose forward pass runs no batch norm with stored statistics."""
        norms = [norm for _, norm in batch_norms(network)]
        ran: list[nn.Module] = []
        with torch.no_grad(), entering(norms, lambda norm, _: ran.append(norm)):
            network(example)
        if ran:
            return
        lack = "none of its batch norms ever runs" if norms else "it has none"
        raise NetworkError(
            f"the method reads batch-norm statistics, and {lack}",
            where="--method",
            remedy="choose a method that reads none: `dreamquant methods NAME` says what it reads",
        )

    @contextmanager
    def watch(self, network: nn.Module) -> Iterator[Collected]:
        """Collect four vectors of each batch norm, in the order executed."""
        collected: list[Layer] = []

        def collect(norm: nn.Module, inputs: tuple[Any, ...]) -> None:
            measured = image_statistics if self.per_image else channel_statistics
            stored = cast(Tensor, norm.running_mean), cast(Tensor, norm.running_var)
            collected.append(Layer(*measured(inputs[0]), *stored))

        with entering([norm for _, norm in batch_norms(network)], collect):
            yield lambda: tuple(tensor for layer in collected for tensor in layer)

    def value(self, tensors: Sequence[Tensor]) -> Statistics:
        """The vectors of all layers; of a batch, over all processes."""
        mean, var, stored_mean, stored_var = (
            torch.cat([*tensors[part::4]], dim=-1) for part in range(4)
        )
        if not self.per_image:
            mean, var = distributed.moments(mean, var)
        sizes = tuple(len(stored) for stored in tensors[2::4])
        return Statistics(mean, var, stored_mean, stored_var, sizes)


def image_statistics(x: Tensor) -> ChannelStatistics:
    """Mean and biased variance of each image's channels: (B, F) each, of ``x`` (B, F, ...)."""
    over = tuple(range(2, x.dim()))
    var, mean = torch.var_mean(full_precision(x), over, correction=0)
    return ChannelStatistics(mean, var)


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


class _LastReluMap(TorchFunctionMode):
    """Keeps the last feature map (B, F, h, w) that leaves a ReLU during a forward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Tensor | None = None

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if is_relu(func, args, kwargs) and result.dim() == 4:
            self.found = result
        return result


@dataclass(frozen=True)
class LastMap(Tap[Tensor]):
    """The last feature map (B, F, h, w) that leaves a ReLU, float32."""

    def require(self, network: nn.Module, example: Tensor) -> None:
        """Refuse a network in which no ReLU yields a feature map."""
        with torch.no_grad(), self.watch(network) as collected:
            network(example)
        if not collected():
            raise NetworkError(
                "the method reads the last feature map, and no ReLU of the network yields one",
                remedy="use a method without attention or robustness terms, such as gdfq",
            )

    @contextmanager
    def watch(self, network: nn.Module) -> Iterator[Collected]:
        """Collect the map; nothing where there is none."""
        with _LastReluMap() as mode:
            yield lambda: () if mode.found is None else (full_precision(mode.found),)

    def value(self, tensors: Sequence[Tensor]) -> Tensor:
        """The map."""
        return tensors[0]


@dataclass(frozen=True)
class Outputs(Tap[tuple[Tensor, ...]]):
    """What leaves the modules whose name matches; the value is a tuple in the order executed.

    Attributes:
        pattern: of names in the user's module; ``*`` stands for dots too, so that ``layer*`` is
            every module whose name begins so, at any depth, and ``layer?`` those at the top.
    """

    pattern: str

    def require(self, network: nn.Module, example: Tensor) -> None:
        """Refuse a network that runs no such module."""
        with torch.no_grad(), self.watch(network) as collected:
            network(example)
        if not collected():
            raise NetworkError(
                f"the method reads the outputs of modules named {self.pattern!r}, and the network "
                "runs none",
                where="--method",
                remedy="choose another method: `dreamquant methods NAME` says what it reads",
            )

    @contextmanager
    def watch(self, network: nn.Module) -> Iterator[Collected]:
        """Collect the output of each matching module that returns one tensor."""
        collected: list[Tensor] = []

        def collect(_: nn.Module, inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor):
                collected.append(output)

        handles = [
            module.register_forward_hook(collect)
            for name, module in _users_modules(network)
            if fnmatchcase(name, self.pattern)
        ]
        try:
            yield lambda: tuple(collected)
        finally:
            for handle in handles:
                handle.remove()

    def value(self, tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """All of them, float32."""
        return tuple(full_precision(tensor) for tensor in tensors)


class Added(nn.Module):
    """A module that quantization puts into the user's: patterns of names do not match it."""


def _users_modules(network: nn.Module) -> list[tuple[str, nn.Module]]:
    """The user's modules by their names, which are the teacher's in a student too."""
    inner = getattr(network, "network", None)
    named = [*(inner if isinstance(inner, nn.Module) else network).named_modules()]
    added = tuple(f"{n}." for n, m in named if isinstance(m, (Added, ParametrizationList)))
    return [(name, module) for name, module in named if not f"{name}.".startswith(added)]
