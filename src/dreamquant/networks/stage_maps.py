"""The tap on the last feature map of each size, which is the end of a stage of the network."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dreamquant.errors import NetworkError
from dreamquant.networks.channel_statistics import full_precision
from dreamquant.networks.module_outputs import users_modules
from dreamquant.networks.taps import Collected, Tap


@dataclass(frozen=True)
class StageMaps(Tap[tuple[Tensor, ...]]):
    """The last map (B, F, h, w) of each spatial size that a module returns, in the order executed.

    Tokens (B, N, F) count as a map (B, F, N, 1). Maps with one position are left out.
    """

    def require(self, network: nn.Module, example: Tensor) -> None:
        """Refuse a network in which no module returns a feature map."""
        with torch.no_grad(), self.watch(network) as collected:
            network(example)
        if not collected():
            raise NetworkError(
                "the method reads feature maps, and no module of the network returns one",
                where="--method",
                remedy="choose another method: `dreamquant methods NAME` says what it reads",
            )

    @contextmanager
    def watch(self, network: nn.Module) -> Iterator[Collected]:
        """Collect the maps."""
        found: dict[tuple[int, ...], Tensor] = {}

        def collect(_: nn.Module, inputs: Any, output: Any) -> None:
            if not isinstance(output, Tensor) or output.dim() not in (3, 4):
                return
            made = output if output.dim() == 4 else output.transpose(1, 2).unsqueeze(3)
            size = tuple(made.shape[2:])
            if size != (1, 1):
                found.pop(size, None)  # the order is that of the last map of each size
                found[size] = made

        modules = [module for _, module in users_modules(network)]
        handles = [module.register_forward_hook(collect) for module in modules]
        try:
            yield lambda: tuple(found.values())
        finally:
            for handle in handles:
                handle.remove()

    def value(self, tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """The maps, float32."""
        return tuple(full_precision(tensor) for tensor in tensors)
