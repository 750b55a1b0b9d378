"""What leaves each batch norm: feature maps that teacher and student have in common."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dreamquant.errors import NetworkError
from dreamquant.networks.probe import batch_norms
from dreamquant.networks.taps import Collected, Tap


@dataclass(frozen=True)
class NormOutputs(Tap[tuple[Tensor, ...]]):
    """Outputs (B, F, ...) of all batch norms, float32, a tuple in the order executed."""

    def require(self, network: nn.Module, example: Tensor) -> None:
        """Refuse a network that runs no batch norm."""
        with torch.no_grad(), self.watch(network) as collected:
            network(example)
        if not collected():
            raise NetworkError(
                "the method reads what leaves batch norms, and the network runs none",
                where="--method",
                remedy="choose a method that reads none: `dreamquant methods` says what each reads",
            )

    @contextmanager
    def watch(self, network: nn.Module) -> Iterator[Collected]:
        """Collect the output of each batch norm."""
        collected: list[Tensor] = []

        def collect(_: nn.Module, inputs: Any, output: Tensor) -> None:
            collected.append(output)

        handles = [norm.register_forward_hook(collect) for _, norm in batch_norms(network)]
        try:
            yield lambda: tuple(collected)
        finally:
            for handle in handles:
                handle.remove()

    def value(self, tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """All of them, float32."""
        return tuple(tensor.float() for tensor in tensors)
