"""Bits of each layer: the least damage that a size allows, solved exactly."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dreamquant.errors import SchemeError


def allocate(
    damage: NDArray[np.float64], sizes: NDArray[np.float64], limit: float
) -> Sequence[int]:
    """Choose one option a layer, such that the sum of damages is least.

    A knapsack with one choice a layer (multiple-choice knapsack), solved by HiGHS.

    Args:
        damage: of each layer (rows) by each of its options (columns), at least 0.
        sizes: in bytes, likewise.
        limit: bytes of all layers together.

    Returns:
        The column of each layer.

    Raises:
        SchemeError: even the smallest options are larger than the limit.
    """
    layers, options = damage.shape
    least = sizes.min(axis=1).sum()
    if least > limit:
        raise SchemeError(
            f"the weights alone take at least {least:,.0f} bytes",
            where="--size",
            remedy="give a larger size",
        )
    # Imported here: it takes a third of a second, which uniform bits need not spend.
    from scipy.optimize import Bounds, LinearConstraint, milp

    one_each = np.kron(np.eye(layers), np.ones(options))
    solved = milp(
        damage.ravel(),
        integrality=np.ones(layers * options),
        bounds=Bounds(0, 1),
        constraints=[
            LinearConstraint(one_each, 1, 1),
            # In units of the limit: the solver's tolerances are absolute.
            LinearConstraint(sizes.reshape(1, -1) / limit, -np.inf, 1),
        ],
    )
    assert solved.x is not None, solved.message  # feasible, for the smallest options are
    return [int(row) for row in solved.x.reshape(layers, options).argmax(axis=1)]
