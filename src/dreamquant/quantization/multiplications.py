"""Multiplications of a forward pass, counted where they are computed, whoever asks for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import prod
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

Shape = tuple[int, ...]


def _recurrent(x: Shape, first: Shape, second: Shape, *_: Any, **__: Any) -> int:
    """One layer in one direction: each element of a sequence meets each weight once."""
    steps = prod(x[:-1])
    return 2 * steps * (prod(first) + prod(second))


def _attention(q: Shape, k: Shape, v: Shape, *_: Any, **__: Any) -> int:
    return 2 * prod(q) * k[-2] + 2 * prod(q[:-1]) * prod(v[-2:])


def _deformed(_: Shape, weight: Shape, *__: Any, out_shape: Shape, **___: Any) -> int:
    return 2 * out_shape[0] * prod(out_shape[2:]) * prod(weight)


def _trilinear(first: Shape, weight: Shape, *_: Any, **__: Any) -> int:
    return 2 * prod(first[:-1]) * prod(weight)


def _others() -> dict[Any, Callable[..., int]]:
    """Operations that PyTorch's counter does not know, each with its additions, as it counts."""
    known: dict[Any, Callable[..., int]] = {
        torch.ops.aten.mkldnn_rnn_layer: _recurrent,
        torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention,
        torch.ops.aten._trilinear: _trilinear,
    }
    if hasattr(torch.ops.torchvision, "deform_conv2d"):
        known[torch.ops.torchvision.deform_conv2d] = _deformed
    return known


@contextmanager
def counting_multiplications() -> Iterator[Callable[[], int]]:
    """Count multiplications of convolutions and matrix products; gives how many so far.

    Within scripted modules, recurrent layers and attention they count too. Element-wise products
    do not, nor do operations of extensions that PyTorch knows nothing of.
    """
    with FlopCounterMode(display=False, custom_mapping=_others()) as counter:
        yield lambda: counter.get_total_flops() // 2
