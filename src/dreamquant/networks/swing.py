"""Swing convolutions: strided convolutions read inputs at a random offset (GENIE, CVPR 2023).

A convolution of stride 2 reads each input position with only some of its weights, so gradients of
images show a checkerboard. A random shift of the input by up to one pixel, drawn for each forward
pass, removes it on average.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_REACH = 1  # pixels


def moved(x: Tensor, down: int, right: int) -> Tensor:
    """Shift ``x`` (B, C, H, W) by -1 to 1 pixels; the border is filled by reflection.

    Args:
        x: images of at least 2 x 2 pixels.
        down: number of rows.
        right: number of columns.
    """
    height, width = x.shape[2:]
    wide = F.pad(x, (_REACH,) * 4, mode="reflect")
    top, left = _REACH - down, _REACH - right
    return wide[:, :, top : top + height, left : left + width]


@contextmanager
def swinging(network: nn.Module, choice: torch.Generator) -> Iterator[None]:
    """Let each strided 2-d convolution of a network read its input with a random offset.

    Args:
        network: the network; weights and sizes of outputs do not change.
        choice: random generator of the offsets, on the CPU.
    """

    def swing(_: nn.Module, inputs: tuple[Any, ...]) -> tuple[Tensor, ...] | None:
        if min(inputs[0].shape[2:]) <= _REACH:
            return None
        down, right = torch.randint(-_REACH, _REACH + 1, (2,), generator=choice).tolist()
        return (moved(inputs[0], down, right), *inputs[1:])

    handles = [
        module.register_forward_pre_hook(swing)
        for module in network.modules()
        if isinstance(module, nn.Conv2d) and max(module.stride) > 1
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
