"""Taps for transformers: they find attention in the operations that a forward pass executes.

Attention is a matrix product, then a softmax along the last axis, then a second matrix product.
``F.scaled_dot_product_attention`` and ``nn.MultiheadAttention`` run as these parts while a tap
watches. Windows, as in Swin, count as separate images. Class tokens are the tokens that the network
concatenates before the patches.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from dreamquant.errors import NetworkError
from dreamquant.networks.attention import attention_in_parts, dot_product_attention
from dreamquant.networks.channel_statistics import full_precision
from dreamquant.networks.products import factors
from dreamquant.networks.taps import Collected, Tap, entering

Value = TypeVar("Value")


class Attended(NamedTuple):
    """One attention operation of a forward pass: B images or windows, L queries, S keys.

    Attributes:
        scores: the result of q·kᵀ, before masks (B, heads, L, S).
        maps: the result of softmax (B, heads, L, S).
        outputs: maps times values (B, heads, L, E).
        leading: number of tokens before the patches.
    """

    scores: Tensor
    maps: Tensor
    outputs: Tensor
    leading: int


class AttentionMode(TorchFunctionMode):
    """Collects every attention of a forward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[Attended] = []
        self.images = 0
        self._product: Tensor | None = None
        self._maps: tuple[Tensor, Tensor] | None = (
            None  # scores and maps whose product with values is still to come
        )
        self._joined = (0, 0)  # number of tokens, and of tokens before the patches

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name == "scaled_dot_product_attention":
            with self:
                return dot_product_attention([_as_it_is] * 4, *args, **kwargs)
        result = func(*args, **kwargs)
        if name == "softmax":
            self._normalised(args[0] if args else kwargs["input"], result)
        elif name in ("cat", "concat", "concatenate"):
            self._concatenated(args[0] if args else kwargs["tensors"], result)
        elif name not in ("linear", "conv1d", "conv2d", "conv3d"):
            pair = factors(func, args, kwargs)
            if pair is not None and isinstance(result, Tensor):
                self._multiplied(pair[0], result)
        return result

    def _multiplied(self, first: Tensor, result: Tensor) -> None:
        if self._maps is not None and first.shape == self._maps[1].shape:
            scores, maps = self._maps
            tokens, leading = self._joined
            self.found.append(
                Attended(
                    self._by_head(scores),
                    self._by_head(maps),
                    self._by_head(result),
                    leading if maps.shape[-1] == tokens else 0,
                )
            )
            self._maps = None
        self._product = result

    def _normalised(self, x: Tensor, result: Tensor) -> None:
        product = self._product
        if product is None or x.dim() < 3 or product.shape[-2:] != x.shape[-2:]:
            return
        if product.numel() == x.numel():
            self._maps = (product.reshape(x.shape), result)

    def _concatenated(self, parts: Any, result: Tensor) -> None:
        if result.dim() != 3 or any(len(part) != len(result) for part in parts):
            return
        counts = [part.shape[1] for part in parts]
        if sum(counts) == result.shape[1]:
            self._joined = (sum(counts), sum(counts[: counts.index(max(counts))]))

    def _by_head(self, x: Tensor) -> Tensor:
        """Reshape to (B, heads, rows, columns); heads may be part of the batch axis, or be one."""
        if x.dim() == 3:
            return x.unflatten(0, (self.images, -1))  # type: ignore[no-untyped-call,no-any-return]
        return x.flatten(0, -4)


def _as_it_is(x: Tensor) -> Tensor:
    return x


@dataclass(frozen=True)
class AttentionTap(Tap[tuple[Tensor, ...]]):
    """One tensor of each attention, in the order executed; the value is a tuple, float32.

    Attributes:
        heads: smallest number of heads that each attention must have.
    """

    heads: int = 1

    @abstractmethod
    def read(self, attended: Attended) -> Tensor:
        """The tensor that the tap reads from one attention."""

    def require(self, network: nn.Module, example: Tensor) -> None:
        """Refuse a network without attention, or with too few heads."""
        with torch.no_grad(), watching(network) as mode:
            network(example)
        if not mode.found:
            raise NetworkError(
                "the method reads attention, and the network has none: no matrix product is "
                "followed by softmax and another matrix product",
                where="--method",
                remedy="choose a method for convolutional networks: `dreamquant methods NAME` says "
                "what it reads",
            )
        fewest = min(each.maps.shape[1] for each in mode.found)
        if fewest < self.heads:
            raise NetworkError(
                f"the method compares at least {self.heads} attention heads, and the network has "
                f"{fewest}",
                where="--method",
                remedy="use psaq_vit or sardfq, which read each head separately",
            )

    @contextmanager
    def watch(self, network: nn.Module) -> Iterator[Collected]:
        """Collect one tensor of each attention."""
        with watching(network) as mode:
            yield lambda: tuple(self.read(each) for each in mode.found)

    def value(self, tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """The tensors of all attentions."""
        return tuple(full_precision(tensor) for tensor in tensors)


@contextmanager
def watching(network: nn.Module) -> Iterator[AttentionMode]:
    """Collect every attention of a forward pass inside the block."""
    mode = AttentionMode()

    def enter(_: nn.Module, inputs: tuple[Any, ...]) -> None:
        mode.images = len(inputs[0])

    with attention_in_parts(network), entering([network], enter), mode:
        yield mode


@dataclass(frozen=True)
class AttentionScores(AttentionTap):
    """q·kᵀ before softmax, of patches only: (B, heads, patches, patches) each."""

    def read(self, attended: Attended) -> Tensor:
        """The rows and columns of the patches."""
        return attended.scores[..., attended.leading :, attended.leading :]


@dataclass(frozen=True)
class PatchAttention(AttentionTap):
    """The attention that each patch receives: (B, heads, patches) each.

    It is the attention of the class token. Without a class token, it is the mean over all queries.
    """

    def read(self, attended: Attended) -> Tensor:
        """One row of each map."""
        leading = attended.leading
        rows = attended.maps[..., 0, :] if leading else attended.maps.mean(-2)
        return rows[..., leading:]


@dataclass(frozen=True)
class HeadOutputs(AttentionTap):
    """Attention maps times values, of all tokens: (B, heads, tokens, width of a head) each."""

    def read(self, attended: Attended) -> Tensor:
        """The result of the second matrix product."""
        return attended.outputs


@dataclass(frozen=True)
class PatchTokens(AttentionTap):
    """Attention maps times values, mean over heads, of patches only: (B, patches, width) each."""

    def read(self, attended: Attended) -> Tensor:
        """The rows of the patches."""
        return attended.outputs.mean(1)[:, attended.leading :]
