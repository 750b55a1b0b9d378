"""Taps: what a forward pass computes inside, read without touching the network.

A tap is a value (a frozen dataclass). ``require`` refuses a network that lacks what the tap reads,
before a run begins; ``watch`` collects it during a forward pass; ``value`` is what a term gets.
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
