"""SQuant: rounding without any data, by the sums of rounding errors.

Guo et al., ICLR 2022: with inputs of a ReLU network all positive and alike, what harms an output
channel is less each weight's rounding error than their sum, over each kernel and over the channel.
Starting from nearest rounding, the weights whose errors are largest are rounded the other way until
these sums are at most half a step. Written from the description, not from the released code.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from dreamquant.quantization.affine import Grid

# Which sums are made small: none (E), those of kernels (K), of channels (C), or both.
Sums = Literal["E", "EK", "EC", "EKC"]


class _Flips(NamedTuple):
    """What one more flip of each weight would do.

    Attributes:
        codes: (rows, n) in force, floating point.
        error: (rows, n), code minus exact value, in steps.
        open: (rows, n), whether a later stage may still flip it.
    """

    codes: Tensor
    error: Tensor
    open: Tensor


@torch.no_grad()
def squant(exact: Tensor, grid: Grid, sums: Sums = "EKC") -> Tensor:
    """Codes of weights such that rounding errors cancel within kernels and channels.

    But for weights stuck at the ends of the grid, with ``EKC`` the errors of a channel add up to at
    most half a step, those of a kernel to at most one, and each weight is at most one step off.

    Args:
        exact: (O, I, k), weights divided by their scale plus the zero-point: O output channels
            with I kernels of k weights.
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
    """Flip in each row as many of its largest errors as its sum is away from zero.

    Args:
        state: rows of weights.
        grid: the codes.
        survivors: leave open for a later stage but one weight of each row, the one whose flip
            would keep the row's sum smallest.
    """
    total = state.error.sum(1, keepdim=True)
    direction = -total.sign()
    # A flip takes a code past the exact value, to its other neighbour.
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
    """Where a row's sum was overshot the last weight flipped, to be flipped back; else the next."""
    overshot = flips >= total.abs()
    return rank == torch.where(overshot, flips - 1, flips).clamp(min=0)


def _inside(codes: Tensor, grid: Grid) -> Tensor:
    return (codes >= grid.qmin) & (codes <= grid.qmax)
