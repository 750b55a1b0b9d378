"""What the last layer of a network reads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dreamquant.errors import NetworkError
from dreamquant.networks.channel_statistics import full_precision
from dreamquant.networks.taps import Collected, Tap


@dataclass(frozen=True)
class ClassifierInput(Tap[Tensor]):
    """Input (B, F) of the last convolution or linear layer executed, float32, flattened."""

    def require(self, network: nn.Module, example: Tensor) -> None:
        """Refuse a network that runs no such layer."""
        with torch.no_grad(), self.watch(network) as collected:
            network(example)
        if not collected():
            raise NetworkError(
                "the method reads the input of the last layer, and the network runs none",
                where="--method",
                remedy="choose another method: `dreamquant methods NAME` says what it reads",
            )

    @contextmanager
    def watch(self, network: nn.Module) -> Iterator[Collected]:
        """Collect the input of the layer that runs last."""
        found: list[Tensor] = []

        def collect(_: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            found[:] = [inputs[0]]

        layers = (nn.modules.conv._ConvNd, nn.Linear)
        handles = [
            module.register_forward_hook(collect)
            for module in network.modules()
            if isinstance(module, layers)
        ]
        try:
            yield lambda: tuple(found)
        finally:
            for handle in handles:
                handle.remove()

    def value(self, tensors: Sequence[Tensor]) -> Tensor:
        """The input of each image as a row."""
        return full_precision(tensors[0]).flatten(1)
