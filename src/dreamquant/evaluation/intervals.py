"""Intervals of values measured on some images."""

from __future__ import annotations

import math

from torch import Tensor

Z95 = 1.959963984540054  # the normal distribution's 97.5 % quantile


def wilson(successes: int, n: int) -> tuple[float, float]:
    """Wilson's 95 % score interval of a proportion, in percent.

    Unlike the normal interval it stays within 0..100 and keeps a width at either end.

    Raises:
        ValueError: not ``0 <= successes <= n``, or ``n`` is 0.
    """
    if not 0 <= successes <= n or n == 0:
        raise ValueError(f"{successes} successes in {n} trials")
    share = successes / n
    centre = share + Z95**2 / (2 * n)
    half = Z95 * math.sqrt(share * (1 - share) / n + (Z95 / (2 * n)) ** 2)
    scale = 100 / (1 + Z95**2 / n)
    # Rounding may exceed the limits by an ulp.
    return max(0.0, scale * (centre - half)), min(100.0, scale * (centre + half))


def mean_in_percent(fractions: Tensor) -> tuple[float, tuple[float, float]]:
    """The mean of fractions (N,) in percent, and its 95 % interval."""
    n, mean = len(fractions), fractions.double().mean().item()
    if bool(((fractions == 0) | (fractions == 1)).all()):
        successes = int(fractions.sum())
        return 100 * successes / n, wilson(successes, n)
    half = Z95 * fractions.double().std().item() / math.sqrt(n) if n > 1 else 1.0
    return 100 * mean, (100 * max(0.0, mean - half), 100 * min(1.0, mean + half))
