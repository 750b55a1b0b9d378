"""Taps: what a forward pass computes inside, read without touching the network."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn


class ChannelStatistics(NamedTuple):
    """Mean and biased variance per channel, each (F,)."""

    mean: Tensor
    var: Tensor


@contextmanager
def batch_norm_inputs(norms: Sequence[nn.Module]) -> Iterator[list[ChannelStatistics]]:
    """Collect the batch statistics of what enters each batch norm during a forward pass.

    Args:
        norms: batch norm modules; those the forward pass does not run add nothing.

    Yields:
        A list that fills in the order executed, with gradient to the images.
    """
    collected: list[ChannelStatistics] = []

    def collect(_: nn.Module, inputs: tuple[Any, ...]) -> None:
        x = inputs[0]
        var, mean = torch.var_mean(x, [0, *range(2, x.dim())], correction=0)
        collected.append(ChannelStatistics(mean, var))

    handles = [norm.register_forward_pre_hook(collect) for norm in norms]
    try:
        yield collected
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def execution_order(modules: Sequence[nn.Module]) -> Iterator[list[nn.Module]]:
    """Collect which of ``modules`` a forward pass runs, in order, once per run."""
    executed: list[nn.Module] = []
    handles = [
        module.register_forward_pre_hook(lambda module, _: executed.append(module))
        for module in modules
    ]
    try:
        yield executed
    finally:
        for handle in handles:
            handle.remove()
