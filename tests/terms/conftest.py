"""A step made of given numbers, which refuses whatever a term has not declared."""

from __future__ import annotations

import pytest

from given_steps import given_step


@pytest.fixture
def step_for():
    """``step_for(term, teacher=, student=, targets=)``, see ``given_step``."""
    return given_step
