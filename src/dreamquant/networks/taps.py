"""Taps read intermediate values of a forward pass without changing the network.

A tap is a frozen dataclass. ``require`` refuses a network that does not have what the tap reads,
before a run begins. ``watch`` collects it during a forward pass. ``value`` is what a term gets.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

Watched = TypeVar("Watched", bound=nn.Module)
Value = TypeVar("Value")
Collected = Callable[[], tuple[Tensor, ...]]


class Tap(ABC, Generic[Value]):
    """Something inside a network that terms read. It is a frozen dataclass; equal taps are one."""

    @abstractmethod
    def require(self, network: nn.Module, example: Tensor) -> None:
        """Refuse a network that does not have what the tap reads.

        Args:
            network: in eval mode.
            example: normalised images (B, C, H, W).

        Raises:
            NetworkError: the message says what the network does not have.
        """

    @abstractmethod
    def watch(self, network: nn.Module) -> AbstractContextManager[Collected]:
        """Collect during one forward pass; it yields a function that returns the tensors."""

    @abstractmethod
    def value(self, tensors: Sequence[Tensor]) -> Value:
        """The value for a term, from the collected tensors."""


@dataclass(frozen=True)
class Output(Tap[Tensor]):
    """The network's output (B, classes)."""

    def require(self, network: nn.Module, example: Tensor) -> None:
        """Accept every network, because each one has an output."""

    def watch(self, network: nn.Module) -> AbstractContextManager[Collected]:
        """Collect nothing, because the forward pass returns the output."""
        return nullcontext(lambda: ())

    def value(self, tensors: Sequence[Tensor]) -> Tensor:
        """The output; a view provides it without this tap."""
        return tensors[0]


@contextmanager
def entering(
    modules: Iterable[Watched], look: Callable[[Watched, tuple[Any, ...]], None]
) -> Iterator[None]:
    """Call ``look`` with each module and its positional inputs before the module runs."""
    handles = [module.register_forward_pre_hook(look) for module in modules]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def unseen() -> Iterator[None]:
    """Hide the operations inside from modes, because they are not part of the network."""
    with torch._C.DisableTorchFunction():
        yield
