"""Rounding of weights by the error of the layer's outputs: ridge, GPTQ, coordinate descent.

If H is the second moment of the inputs, rounding a row w to q adds ``(q - w) H (q - w)`` to the
squared error of the layer's output. Rows are (G, O, K): G groups of O output channels with K inputs
each. H is (G, K, K) and must be positive definite, so it is damped. Inputs that are always zero are
then rounded to nearest; GPTQ as published sets their weights to zero.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dreamquant.recovery.gram import Moments
from dreamquant.recovery.levels import Levels

# Columns of a block: updates go column by column inside it, and by one matrix product after it.
_BLOCK = 64
# The values from which validation chooses.
DAMPS = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
# Least damping, as a fraction of the mean squared input over all groups, because the inputs of a
# group may all be zero.
_LEAST_DAMP = 1e-6


def damped(gram: Tensor, damp: float) -> Tensor:
    """H plus ``damp`` times the mean of its group's diagonal, on the diagonal.

    Args:
        gram: (G, K, K).
        damp: at least 0; few images need more (0.01 to 0.5).
    """
    diagonal = gram.diagonal(dim1=1, dim2=2)
    least = (_LEAST_DAMP * diagonal.mean()).clamp(min=torch.finfo(torch.float32).tiny)
    added = (damp * diagonal.mean(1, keepdim=True)).clamp(min=least)
    return gram + torch.diag_embed(added.expand_as(diagonal))


def least_squares_target(moments: Moments, rows: Tensor, gram: Tensor) -> Tensor:
    """The best real rows for these inputs, with a ridge toward the earlier rows.

    It minimises ``E|wanted - w x|² + |w - rows|² D`` where D is the damping; rounding against the
    damped H minimises the same sum over the grid.

    Args:
        moments: of the quantized layer's inputs and wanted outputs; centred where there is a bias
            to solve for.
        rows: (G, O, K), of the full-precision layer.
        gram: the damped H, from :func:`damped`.

    Returns:
        (G, O, K), float64.
    """
    rows = rows.double()
    missing = moments.cross - moments.gram @ rows.transpose(1, 2)
    factor = torch.linalg.cholesky(gram)
    return rows + torch.cholesky_solve(missing, factor).transpose(1, 2)


def validated_damp(halves: tuple[Moments, Moments], rows: Tensor) -> float:
    """The damping of least error in a cross-validation between two halves of the images.

    Args:
        halves: moments of the two halves; centred where there is a bias to solve for.
        rows: (G, O, K), of the full-precision layer.

    Returns:
        One of ``DAMPS``.
    """
    errors = [_held_out_error(halves, rows, damp) for damp in DAMPS]
    return DAMPS[int(torch.stack(errors).argmin())]


def _held_out_error(halves: tuple[Moments, Moments], rows: Tensor, damp: float) -> Tensor:
    """Squared output error on each half of the target found on the other half, up to a constant."""
    total = rows.new_zeros((), dtype=torch.float64)
    for seen, held in (halves, halves[::-1]):
        target = least_squares_target(seen, rows, damped(seen.gram, damp))
        turned = target.transpose(1, 2)
        total += ((held.gram @ turned - 2 * held.cross) * turned).sum()
    return total


def output_error(rows: Tensor, target: Tensor, gram: Tensor) -> Tensor:
    """``(q - w) H (q - w)`` of each row, (G, O)."""
    gap = rows - target
    return ((gap @ gram) * gap).sum(2)


def gptq(target: Tensor, gram: Tensor, levels: Levels) -> Tensor:
    """Round the columns one after another; later columns compensate for the errors of earlier ones.

    GPTQ (Frantar et al., ICLR 2023, algorithm 1), in the order of decreasing input power.

    Args:
        target: (G, O, K), real rows.
        gram: damped H.
        levels: of the rows.

    Returns:
        Rows on their levels, (G, O, K).
    """
    order = gram.diagonal(dim1=1, dim2=2).argsort(1, descending=True)
    inverse = torch.linalg.inv(_ordered(gram.double(), order))
    upper = torch.linalg.cholesky(inverse, upper=True).to(target.dtype)
    columns = _columns(target, order)
    rounded = torch.empty_like(columns)
    scale, zero_point = levels.scale.squeeze(2), levels.zero_point.squeeze(2)
    flat = Levels(scale, zero_point, levels.grid)
    for begin in range(0, columns.shape[1], _BLOCK):
        block = columns[:, begin : begin + _BLOCK]
        end = begin + block.shape[1]
        errors = torch.empty_like(block)
        for j in range(begin, end):
            here = block[:, j - begin]
            rounded[:, j] = flat.nearest(here)
            error = (here - rounded[:, j]) / upper[:, j, j, None]
            errors[:, j - begin] = error
            block[:, j - begin :].baddbmm_(upper[:, j, j:end, None], error.unsqueeze(1), alpha=-1)
        columns[:, end:].baddbmm_(upper[:, begin:end, end:].transpose(1, 2), errors, alpha=-1)
    return _rows(rounded, order)


def descend(start: Tensor, target: Tensor, gram: Tensor, levels: Levels, sweeps: int) -> Tensor:
    """Improve the columns one after another; the error of a row never grows.

    With the other columns fixed, H gives the best real value of a weight, and the level nearest to
    it is the best level. This is COMQ (Zhang et al., arXiv 2403.07134) on Gram matrices; columns
    are in the order of decreasing input power, which is the same for all rows.

    Args:
        start: (G, O, K), on its levels.
        target: (G, O, K), real rows.
        gram: damped H.
        levels: of the rows.
        sweeps: how often each column is improved.

    Returns:
        Rows on their levels, (G, O, K).
    """
    order = gram.diagonal(dim1=1, dim2=2).argsort(1, descending=True)
    gram = _ordered(gram, order)
    power = gram.diagonal(dim1=1, dim2=2).unsqueeze(2)
    rounded = _columns(start, order)
    slope = gram @ (_columns(target, order) - rounded)
    flat = Levels(levels.scale.squeeze(2), levels.zero_point.squeeze(2), levels.grid)
    for _ in range(sweeps):
        for begin in range(0, rounded.shape[1], _BLOCK):
            end = min(begin + _BLOCK, rounded.shape[1])
            before = rounded[:, begin:end].clone()
            within = slope[:, begin:end].clone()
            for j in range(begin, end):
                here = rounded[:, j]
                best = flat.nearest(here + within[:, j - begin] / power[:, j])
                within.baddbmm_(gram[:, begin:end, j, None], (best - here).unsqueeze(1), alpha=-1)
                rounded[:, j] = best
            moved = rounded[:, begin:end] - before
            slope.baddbmm_(gram[:, :, begin:end], moved, alpha=-1)
    return _rows(rounded, order)


def refit_scale(rows: Tensor, target: Tensor, gram: Tensor, levels: Levels) -> Levels:
    """Levels with the best scales for the present codes of ``rows``; the error never grows.

    The best scale for codes c is ``(w H c) / (c H c)`` (compare Beacon, arXiv 2508.20293).
    """
    steps = levels.steps(rows)
    turned = steps @ gram
    found = (turned * target).sum(2, keepdim=True)
    norm = (turned * steps).sum(2, keepdim=True)
    if len(levels.scale) == 1:
        found, norm = found.sum(0, keepdim=True), norm.sum(0, keepdim=True)
    usable = (norm > 0) & (found > 0)
    scale = torch.where(usable, found / norm.where(usable, 1), levels.scale)
    return levels._replace(scale=scale)


def round_rows(target: Tensor, gram: Tensor, levels: Levels, sweeps: int) -> tuple[Tensor, Levels]:
    """Round by GPTQ, then by sweeps of coordinate descent, with scales refitted before each sweep.

    Args:
        target: (G, O, K), real rows.
        gram: damped H, (G, K, K).
        levels: first levels.
        sweeps: sweeps of descent, at least 0.

    Returns:
        The rounded rows and their levels.
    """
    rounded = gptq(target, gram, levels)
    nearest = levels.nearest(target)
    worse = output_error(rounded, target, gram) > output_error(nearest, target, gram)
    rounded = torch.where(worse.unsqueeze(2), nearest, rounded)
    for _ in range(sweeps):
        steps = levels.steps(rounded)
        levels = refit_scale(rounded, target, gram, levels)
        rounded = descend(steps * levels.scale, target, gram, levels, 1)
    return rounded, levels


def _ordered(gram: Tensor, order: Tensor) -> Tensor:
    by_row = gram.gather(1, order.unsqueeze(2).expand_as(gram))
    return by_row.gather(2, order.unsqueeze(1).expand_as(gram))


def _columns(rows: Tensor, order: Tensor) -> Tensor:
    """Rows as (G, K, O) in the order of columns, so that each column is contiguous in memory."""
    turned = rows.transpose(1, 2)
    return turned.gather(1, order.unsqueeze(2).expand_as(turned))


def _rows(columns: Tensor, order: Tensor) -> Tensor:
    back = order.argsort(1).unsqueeze(2).expand_as(columns)
    return columns.gather(1, back).transpose(1, 2).contiguous()
