"""The choice of bits is optimal."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from dreamquant.errors import SchemeError
from dreamquant.quantization.allocation import allocate


@pytest.mark.parametrize("seed", range(5))
def test_the_choice_is_that_of_brute_force(seed: int) -> None:
    random = np.random.default_rng(seed)
    damage = np.sort(random.random((4, 3)))[:, ::-1]
    sizes = np.sort(1e6 * random.random((4, 3)))
    limit = 0.6 * sizes.max(1).sum() + 0.4 * sizes.min(1).sum()

    def total(table: np.ndarray, columns: tuple[int, ...]) -> float:
        return float(sum(table[row, column] for row, column in enumerate(columns)))

    allowed = [
        columns
        for columns in itertools.product(range(3), repeat=4)
        if total(sizes, columns) <= limit
    ]
    best = min(total(damage, columns) for columns in allowed)
    found = tuple(allocate(damage, sizes, limit))
    assert found in allowed
    assert total(damage, found) == pytest.approx(best)


def test_a_size_below_the_smallest_is_refused() -> None:
    with pytest.raises(SchemeError, match="at least 3 bytes"):
        allocate(np.ones((3, 1)), np.ones((3, 1)), 2.0)
