"""Decay of a learning rate over the steps of an optimizer."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass


class Decay(ABC):
    """A factor of the learning rate at each step."""

    @abstractmethod
    def factor(self, step: int, total: int) -> float:
        """In (0, 1], for step ``step`` of ``total``, counted from 0."""

    @abstractmethod
    def stretched(self, ratio: float) -> Decay:
        """The same over ``ratio`` times as many steps."""


@dataclass(frozen=True)
class Steps(Decay):
    """Multiplies the rate by 0.1 at each milestone.

    Attributes:
        at: milestones: steps, counted from 0.
    """

    at: tuple[int, ...]

    def factor(self, step: int, total: int) -> float:
        """0.1 to the power of the number of milestones reached."""
        return 0.1 ** sum(step >= milestone for milestone in self.at)

    def stretched(self, ratio: float) -> Steps:
        """Milestones at the same fractions of the length."""
        return Steps(tuple(stretch(milestone, ratio) for milestone in self.at))


@dataclass(frozen=True)
class Cosine(Decay):
    """A cosine from 1 to 0, multiplied by a linear rise at the start.

    Attributes:
        rise: number of steps of the rise; the cosine falls during these steps too.
    """

    rise: int = 0

    def factor(self, step: int, total: int) -> float:
        """The product of the rise and the cosine."""
        return min(1.0, (step + 1) / (self.rise + 1)) * _cosine(step, total)

    def stretched(self, ratio: float) -> Cosine:
        """The same fraction of the steps for the rise."""
        return Cosine(stretch(self.rise, ratio))


@dataclass(frozen=True)
class Exponential(Decay):
    """Multiplies the rate by a base at regular intervals.

    Attributes:
        base: in (0, 1).
        every: steps of an interval, at least 1.
    """

    base: float
    every: int

    def factor(self, step: int, total: int) -> float:
        """The base to the power of the number of intervals that are over."""
        return float(self.base ** (step // self.every))

    def stretched(self, ratio: float) -> Exponential:
        """The same number of intervals, longer or shorter."""
        return Exponential(self.base, max(stretch(self.every, ratio), 1))


def _cosine(taken: int, total: int) -> float:
    return 0.5 * (1 + math.cos(math.pi * taken / max(total, 1)))


def stretch(length: int, ratio: float) -> int:
    """A number of steps times a ratio; at least 1 where there was any."""
    return max(round(length * ratio), min(length, 1))
