"""SQuant: rounding without any data, by the sums of rounding errors.

Guo et al., ICLR 2022. The inputs of a layer after a ReLU are all positive and similar, so the error
of an output channel depends less on each weight's rounding error than on their sum, over each
kernel and over the channel. Starting from rounding to nearest, the weights with the largest errors
are rounded the other way, until these sums are at most half a step. This code follows the paper's
description, not the released code.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from dreamquant.quantization.affine import Grid

# Which sums are made small: none (E), the kernels' (K), the channels' (C), or both.
Sums = Literal["E", "EK", "EC", "EKC"]


class _Flips(NamedTuple):
    """The state of the rounding, and which weights may still be rounded the other way.

    Attributes:
        codes: (rows, n), present codes, floating point.
        error: (rows, n), code minus exact value, in steps.
        open: (rows, n), whether a later stage may still flip it.
    """

    codes: Tensor
    error: Tensor
    open: Tensor


@torch.no_grad()
def squant(exact: Tensor, grid: Grid, sums: Sums = "EKC") -> Tensor:
    """Codes of weights whose rounding errors cancel within kernels and channels.

    With ``EKC`` the errors of a channel sum up to at most half a step, those of a kernel to at most
    one, and each weight is at most one step off, except for weights at the ends of the grid.

    Args:
        exact: (O, I, k), weights divided by their scale plus the zero-point: O output channels with
            I kernels of k weights.
        grid: the codes.
        sums: which sums are made small.

    Returns:
        Codes (O, I, k), whole numbers in floating point.
    """
    codes = exact.round().clamp(grid.qmin, grid.qmax)
    state = _Flips(codes, codes - exact, torch.ones_like(codes, dtype=torch.bool))
    outputs, inputs, kernel = exact.shape
    if "K" in sums and kernel > 1:
        rows = _Flips(*(each.reshape(outputs * inputs, kernel) for each in state))
        state = _cancel(rows, grid, survivors=True)
    if "C" in sums:
        state = _cancel(_Flips(*(each.reshape(outputs, -1) for each in state)), grid)
    return state.codes.reshape(exact.shape)


def _cancel(state: _Flips, grid: Grid, *, survivors: bool = False) -> _Flips:
    """Flip in each row as many of the largest errors as its sum is away from zero.

    Args:
        state: rows of weights.
        grid: the codes.
        survivors: close all weights of a row for later stages, except the one whose flip would keep
            the row's sum smallest.
    """
    total = state.error.sum(1, keepdim=True)
    direction = -total.sign()
    # A flip changes a code to the level on the other side of the exact value.
    helps = state.open & (state.error * total > 0) & _inside(state.codes + direction, grid)
    priority = torch.where(helps, state.error.abs(), -1.0)
    order = priority.argsort(dim=1, descending=True, stable=True)
    rank = order.argsort(dim=1)
    flips = total.abs().round()
    flip = (rank < flips) & helps
    codes = state.codes + flip * direction
    error = state.error + flip * direction
    still = helps & _survivor(rank, flips, total) if survivors else state.open
    return _Flips(codes, error, still)


def _survivor(rank: Tensor, flips: Tensor, total: Tensor) -> Tensor:
    """The weight that a later stage may flip: the last one flipped where the sum overshot, else the
    next.
    """
    overshot = flips >= total.abs()
    return rank == torch.where(overshot, flips - 1, flips).clamp(min=0)


def _inside(codes: Tensor, grid: Grid) -> Tensor:
    return (codes >= grid.qmin) & (codes <= grid.qmax)
