"""Measurements during a run, compared with values by hand; they do not change the run."""

from __future__ import annotations

import math

import pytest
import torch

from dreamquant.diagnostics.dreams import BATCH, dream
from dreamquant.diagnostics.images import observed
from dreamquant.jobs.dynamics import Dynamics, batch_similarity, gradient_norm, over_time
from dreamquant.jobs.watchers import Record
from dreamquant.methods import find_method
from dreamquant.methods.method import Preset
from dreamquant.synthesis.targets import CENTRE
from dreamquant.training.phase import run_to_the_end

FEW = Preset(
    images={"batch": 4, "alone": 5, "observe": 1}, recovery={"Train": {"batch": 4, "iterations": 7}}
)


@pytest.fixture
def run_for(network, begin):
    """A run of twelve iterations, and the teacher that diagnostics see."""

    def build(method="adadfq"):
        method = find_method(method).resolved("quick", (1, 8, 8)).with_numbers(FEW)
        return begin(method), observed(network, torch.zeros(2, 1, 8, 8))

    return build


def test_similarity_by_hand():
    before = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    assert batch_similarity(before, 3 * before) == pytest.approx(1)
    now = torch.tensor([[0.0, 1.0], [1.0, 1.0]])
    assert batch_similarity(before, now) == pytest.approx((0 + math.sqrt(0.5)) / 2)


def test_the_gradient_is_that_of_the_last_update(run_for):
    begun, _ = run_for()
    next(begun.run.steps())
    gradients = [parameter.grad.flatten() for parameter in begun.images.parameters]
    assert gradient_norm(begun.images) == pytest.approx(torch.cat(gradients).norm().item(), 1e-4)


def test_a_reading_comes_with_the_losses_and_the_first_has_nothing_to_be_alike(run_for):
    begun, teacher = run_for()
    record = Record()
    run_to_the_end(begun.run, [Dynamics(record, teacher, begun.images)])
    found = over_time(record)
    assert found["iteration"][-1] == 12
    assert all(norm > 0 for norm in found["gradient_norm"])
    first, *others = found["batch_similarity"]
    assert first is None
    assert others
    assert all(-1 <= other <= 1 for other in others)


@pytest.mark.parametrize("method", ["adadfq", "acq", "gdfq+ris+agm"])
def test_a_watched_and_diagnosed_run_is_as_one_left_alone(method, run_for):
    watched, teacher = run_for(method)
    alone, _ = run_for(method)
    before = torch.get_rng_state()
    run_to_the_end(watched.run, [Dynamics(Record(), teacher, watched.images)])
    watched.diagnose(teacher)
    assert torch.get_rng_state().equal(before)
    run_to_the_end(alone.run, [])
    assert_equal(watched.run.state_dict(), alone.run.state_dict())


def assert_equal(ours, theirs):
    if isinstance(theirs, torch.Tensor):
        assert ours.equal(theirs)
    elif isinstance(theirs, dict):
        assert ours.keys() == theirs.keys()
        for name, value in theirs.items():
            assert_equal(ours[name], value)
    elif isinstance(theirs, list):
        for one, other in zip(ours, theirs, strict=True):
            assert_equal(one, other)
    else:
        assert ours == theirs


def test_dreams_are_asked_for_as_the_method_asks(run_for):
    images = run_for("acq")[0].images
    batch = dream(images, torch.Generator().manual_seed(0))
    assert batch.images.shape == (BATCH, 1, 8, 8)
    assert batch.targets[0::2].equal(batch.targets[1::2])
    assert batch.conditions[CENTRE][0::2].equal(batch.conditions[CENTRE][1::2])
    soft = dream(run_for("ris")[0].images, torch.Generator().manual_seed(0)).targets
    assert soft.shape == (BATCH, 10)
    asked = torch.arange(6)
    assert dream(images, torch.Generator().manual_seed(0), asked).targets is asked
