"""Batch norms of a student in training mode: they normalise by each batch and follow it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import nn

from dreamquant import distributed


@contextmanager
def following(norms: Sequence[nn.Module]) -> Iterator[None]:
    """Let batch norms normalise by the batch; what they store follows it by their momentum.

    Of several processes, each normalises by its own part of a batch, and all store the mean of what
    they found.
    """
    for norm in norms:
        norm.train()
    try:
        yield
    finally:
        for norm in norms:
            norm.eval()
        stored = [buffer for norm in norms for buffer in norm.buffers()]
        distributed.average([buffer for buffer in stored if buffer.is_floating_point()])
