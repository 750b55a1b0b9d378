"""A step made of given numbers, which refuses whatever a term has not declared."""

from __future__ import annotations

from types import SimpleNamespace

import pytest


class StrictView:
    """Gives what it was made of, notes what was asked, and refuses undeclared taps."""

    def __init__(self, values, reads, allowed):
        self._values, self._reads, self._allowed = values, reads, allowed

    def __getattr__(self, name):
        tap, value = self._values[name]
        if tap is not None:
            if tap not in self._allowed:
                raise AssertionError(f"{name} was read without declaring the tap {tap!r}")
            self._reads.add(tap)
        return value


@pytest.fixture
def step_for():
    """``step_for(term, teacher=, student=, targets=, statistics=)``; it keeps ``step.reads``."""

    def build(term, *, teacher=None, student=None, targets=None, statistics=None):
        reads: set[str] = set()
        return SimpleNamespace(
            targets=targets,
            teacher=StrictView(
                {"logits": (None, teacher), "statistics": ("statistics", statistics)},
                reads,
                term.taps,
            ),
            student=StrictView({"logits": ("student", student)}, reads, term.taps),
            reads=reads,
        )

    return build
