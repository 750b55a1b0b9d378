"""Taps on the outputs of modules, selected by name or by kind."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import ParametrizationList

from dreamquant.errors import NetworkError
from dreamquant.networks.channel_statistics import full_precision
from dreamquant.networks.probe import batch_norms
from dreamquant.networks.taps import Collected, Tap


class _ModuleOutputs(Tap[tuple[Tensor, ...]]):
    """Outputs of selected modules, if the output is one tensor."""

    @property
    @abstractmethod
    def reads(self) -> str:
        """The selected modules in words, for errors."""

    @abstractmethod
    def modules(self, network: nn.Module) -> list[nn.Module]:
        """The modules whose outputs are read."""

    def require(self, network: nn.Module, example: Tensor) -> None:
        """Refuse a network that runs no such module."""
        with torch.no_grad(), self.watch(network) as collected:
            network(example)
        if not collected():
            raise NetworkError(
                f"the method reads the outputs of {self.reads}, and the network runs none of them",
                where="--method",
                remedy="choose another method: `dreamquant methods NAME` says what it reads",
            )

    @contextmanager
    def watch(self, network: nn.Module) -> Iterator[Collected]:
        """Collect the outputs that are one tensor."""
        collected: list[Tensor] = []

        def collect(_: nn.Module, inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor):
                collected.append(output)

        handles = [module.register_forward_hook(collect) for module in self.modules(network)]
        try:
            yield lambda: tuple(collected)
        finally:
            for handle in handles:
                handle.remove()

    def value(self, tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """All outputs, float32, in the order executed."""
        return tuple(full_precision(tensor) for tensor in tensors)


@dataclass(frozen=True)
class Outputs(_ModuleOutputs):
    """Outputs of the modules whose name matches a pattern; a tuple in the order executed.

    Attributes:
        pattern: pattern of names in the user's module. ``*`` matches dots too: ``layer*`` matches
            every module whose name begins with ``layer``, at any depth; ``layer?`` matches those
            at the top level.
    """

    pattern: str

    @property
    def reads(self) -> str:
        """The selected modules in words, for errors."""
        return f"modules named {self.pattern!r}"

    def modules(self, network: nn.Module) -> list[nn.Module]:
        """The user's modules whose names match."""
        named = users_modules(network)
        return [module for name, module in named if fnmatchcase(name, self.pattern)]


@dataclass(frozen=True)
class NormOutputs(_ModuleOutputs):
    """Outputs (B, F, ...) of all batch norms; a tuple in the order executed."""

    @property
    def reads(self) -> str:
        """The selected modules in words, for errors."""
        return "batch norms"

    def modules(self, network: nn.Module) -> list[nn.Module]:
        """All batch norms."""
        return [norm for _, norm in batch_norms(network)]


class Added(nn.Module):
    """A module that quantization inserts into the network; patterns of names do not match it."""


def users_modules(network: nn.Module) -> list[tuple[str, nn.Module]]:
    """The user's modules by name; in a student too, the names are those of the teacher."""
    inner = getattr(network, "network", None)
    named = [*(inner if isinstance(inner, nn.Module) else network).named_modules()]
    added = tuple(f"{n}." for n, m in named if isinstance(m, (Added, ParametrizationList)))
    return [(name, module) for name, module in named if not f"{name}.".startswith(added)]
