"""The tap on the inputs of batch norms: their statistics, and the stored ones of training."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from dreamquant import distributed
from dreamquant.errors import NetworkError
from dreamquant.networks.channel_statistics import channel_statistics, image_statistics
from dreamquant.networks.probe import batch_norms
from dreamquant.networks.taps import Collected, Tap, entering


class Layer(NamedTuple):
    """The part of :class:`Statistics` of one batch norm with F channels."""

    mean: Tensor
    var: Tensor
    stored_mean: Tensor
    stored_var: Tensor


@dataclass(frozen=True)
class Statistics:
    """Statistics of the inputs of batch norms, and the running statistics that they store.

    The vectors contain the channels of all layers, in the order executed.

    Attributes:
        mean: (F,) over the batch; (B, F) for each image if the tap is ``per_image``.
        var: biased variance, with the same shape.
        stored_mean: (F,) running mean that the network stores.
        stored_var: (F,) running variance that the network stores.
        sizes: number of channels of each layer.
    """

    mean: Tensor
    var: Tensor
    stored_mean: Tensor
    stored_var: Tensor
    sizes: tuple[int, ...]

    @cached_property
    def weight(self) -> Tensor:
        """(F,) weights of a sum that averages over the channels of a layer, then over layers."""
        layers = len(self.sizes)
        return torch.cat([self.stored_mean.new_full((n,), 1 / (n * layers)) for n in self.sizes])

    @property
    def layers(self) -> list[Layer]:
        """The same statistics for each layer."""
        vectors = (self.mean, self.var, self.stored_mean, self.stored_var)
        return [
            Layer(*parts)
            for parts in zip(
                *(torch.split(v, list(self.sizes), dim=-1) for v in vectors), strict=True
            )
        ]


@dataclass(frozen=True)
class BatchNormInputs(Tap[Statistics]):
    """Statistics of the input of each batch norm; the value is a :class:`Statistics`.

    Attributes:
        per_image: statistics of each image (ZeroQ) instead of the whole batch.
    """

    per_image: bool = False

    def require(self, network: nn.Module, example: Tensor) -> None:
        """Refuse a network whose forward pass runs no batch norm with running statistics."""
        norms = [norm for _, norm in batch_norms(network)]
        ran: list[nn.Module] = []
        with torch.no_grad(), entering(norms, lambda norm, _: ran.append(norm)):
            network(example)
        if ran:
            return
        lack = "none of its batch norms runs" if norms else "it has no batch norm"
        raise NetworkError(
            f"the method reads batch-norm statistics of the network, and {lack}",
            where="--method",
            remedy="choose a method that does not: `dreamquant methods NAME` says what it reads",
        )

    @contextmanager
    def watch(self, network: nn.Module) -> Iterator[Collected]:
        """Collect four vectors for each batch norm, in the order executed."""
        collected: list[Layer] = []

        def collect(norm: nn.Module, inputs: tuple[Any, ...]) -> None:
            measured = image_statistics if self.per_image else channel_statistics
            stored = cast(Tensor, norm.running_mean), cast(Tensor, norm.running_var)
            collected.append(Layer(*measured(inputs[0]), *stored))

        with entering([norm for _, norm in batch_norms(network)], collect):
            yield lambda: tuple(tensor for layer in collected for tensor in layer)

    def value(self, tensors: Sequence[Tensor]) -> Statistics:
        """The vectors of all layers; statistics of a batch are averaged over all processes."""
        mean, var, stored_mean, stored_var = (
            torch.cat([*tensors[part::4]], dim=-1) for part in range(4)
        )
        if not self.per_image:
            mean, var = distributed.moments(mean, var)
        sizes = tuple(len(stored) for stored in tensors[2::4])
        return Statistics(mean, var, stored_mean, stored_var, sizes)
