"""The input and the weight of the last layer of a network."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from dreamquant.errors import NetworkError
from dreamquant.networks.channel_statistics import full_precision
from dreamquant.networks.taps import Collected, Tap, entering

_LAYERS = (nn.modules.conv._ConvNd, nn.Linear)
_NONE_RUNS = "the method reads {} of the last layer, and the network runs no such layer"
_REMEDY = "choose another method: `dreamquant methods NAME` says what it reads"


def classifier_weight(network: nn.Module, example: Tensor, classes: int) -> Tensor:
    """The weight (classes, F) of the last convolution or linear layer executed, float32, detached.

    Args:
        network: in eval mode.
        example: normalised images (B, C, H, W).
        classes: number of classes.

    Raises:
        NetworkError: the network runs no such layer, or its weight has not one row per class.
    """
    ran: list[nn.Module] = []
    layers = [module for module in network.modules() if isinstance(module, _LAYERS)]
    with torch.no_grad(), entering(layers, lambda layer, _: ran.append(layer)):
        network(example)
    if not ran:
        raise NetworkError(_NONE_RUNS.format("the weight"), where="--method", remedy=_REMEDY)
    weight = cast(Tensor, ran[-1].weight).detach()
    if len(weight) != classes:
        raise NetworkError(
            f"the weight of the last layer has {len(weight)} rows, and the method needs one for "
            f"each of {classes} classes",
            where="--method",
            remedy="choose a method or a preset that does not read this weight, such as gdfq",
        )
    return full_precision(weight).flatten(1)


@dataclass(frozen=True)
class ClassifierInput(Tap[Tensor]):
    """Input (B, F) of the last convolution or linear layer executed, float32, flattened."""

    def require(self, network: nn.Module, example: Tensor) -> None:
        """Refuse a network that runs no convolution and no linear layer."""
        with torch.no_grad(), self.watch(network) as collected:
            network(example)
        if not collected():
            raise NetworkError(_NONE_RUNS.format("the input"), where="--method", remedy=_REMEDY)

    @contextmanager
    def watch(self, network: nn.Module) -> Iterator[Collected]:
        """Collect the input of the layer that runs last."""
        found: list[Tensor] = []

        def collect(_: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            found[:] = [inputs[0]]

        handles = [
            module.register_forward_hook(collect)
            for module in network.modules()
            if isinstance(module, _LAYERS)
        ]
        try:
            yield lambda: tuple(found)
        finally:
            for handle in handles:
                handle.remove()

    def value(self, tensors: Sequence[Tensor]) -> Tensor:
        """The input of each image as a row."""
        return full_precision(tensors[0]).flatten(1)
