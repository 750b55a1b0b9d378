"""Several processes that train one student together, each on its part of every batch.

Inside :func:`together` what is computed over a batch is computed over the batches of all of them;
outside, and in a process on its own, these functions do nothing. torchrun starts the processes, or
any launcher that sets the same variables.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

_joined = False


@contextmanager
def together() -> Iterator[None]:
    """Let collectives inside meet those of the other processes, which must come here too."""
    global _joined
    before, _joined = _joined, True
    try:
        yield
    finally:
        _joined = before


def started() -> bool:
    """Whether this process belongs to a group of processes."""
    return dist.is_available() and dist.is_initialized()


def leave() -> None:
    """End the group's threads, which must not be left to the end of the interpreter.

    A thread that is still letting go of a tensor then aborts the process: one of two processes in
    seven that ended right after a collective, with PyTorch 2 and gloo.
    """
    if started():
        dist.destroy_process_group()


def count() -> int:
    """How many processes share what is computed here."""
    return dist.get_world_size() if _joined and started() else 1


def rank() -> int:
    """Which of them this is, from 0."""
    return dist.get_rank() if started() else 0


def mean(x: Tensor) -> Tensor:
    """The mean over processes, same shape, with a gradient."""
    shared = count()
    if shared == 1:
        return x
    summed: Tensor = _Sum.apply(x)
    return summed / shared


def least(x: Tensor) -> Tensor:
    """The least over processes, elementwise, with a gradient to where it comes from."""
    if count() == 1:
        return x
    low = x.detach().clone()
    dist.all_reduce(low, dist.ReduceOp.MIN)
    owned = (x.detach() == low).to(x.dtype)
    # What is least in several processes at once shares its gradient among them.
    found: Tensor = _Sum.apply(torch.stack([x * owned, owned]))
    return found[0] / found[1].detach()


def largest(x: Tensor) -> Tensor:
    """The largest over processes, elementwise, without a gradient."""
    if count() == 1:
        return x
    high = x.detach().clone()
    dist.all_reduce(high, dist.ReduceOp.MAX)
    return high


def anywhere(flag: bool, device: torch.device) -> bool:
    """Whether it is true in any of them; ``device`` is that of their collectives."""
    if count() == 1:
        return flag
    return bool(largest(torch.tensor(float(flag), device=device)))


def moments(mean_: Tensor, var: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance over all batches, from those of each, with a gradient."""
    if count() == 1:
        return mean_, var
    overall = mean(mean_)
    return overall, mean(var + (mean_ - overall).square())


@torch.no_grad()
def average(tensors: Sequence[Tensor]) -> None:
    """Replace tensors by their means over processes, in one collective."""
    if count() == 1 or not tensors:
        return
    whole = mean(torch.cat([tensor.flatten() for tensor in tensors]))
    parts = torch.split(whole, [tensor.numel() for tensor in tensors])
    for tensor, part in zip(tensors, parts, strict=True):
        tensor.copy_(part.view_as(tensor))


class _Sum(torch.autograd.Function):
    # Every process has the same loss of the sum, so each one's gradient counts for all terms.

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total
