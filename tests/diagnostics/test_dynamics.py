"""What is recorded on the way, by hand; and a run that is watched stays as it is."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from dreamquant.diagnostics.dreams import BATCH, dream
from dreamquant.diagnostics.images import diagnose, observed
from dreamquant.jobs.dynamics import Dynamics, batch_similarity, gradient_norm, over_time
from dreamquant.jobs.watchers import Record
from dreamquant.methods import find_method
from dreamquant.training.loop import run


@pytest.fixture
def run_for(network, begin):
    """A run of twelve iterations, and the teacher that diagnostics see."""

    def build(method="adadfq"):
        recipe = find_method(method).recipe("quick", (1, 8, 8))
        schedule = replace(recipe.schedule.scaled(12), batch=4, student_warmup=5)
        training = begin(replace(recipe, schedule=schedule))
        return training, observed(network, torch.zeros(2, 1, 8, 8))

    return build


def test_similarity_by_hand():
    before = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    assert batch_similarity(before, 3 * before) == pytest.approx(1)
    now = torch.tensor([[0.0, 1.0], [1.0, 1.0]])
    assert batch_similarity(before, now) == pytest.approx((0 + math.sqrt(0.5)) / 2)


def test_the_gradient_is_that_of_the_last_update(run_for):
    training, _ = run_for()
    training.step()
    gradients = [parameter.grad.flatten() for parameter in training.generator_parameters]
    assert gradient_norm(training) == pytest.approx(torch.cat(gradients).norm().item(), rel=1e-4)


def test_a_reading_comes_with_the_losses_and_the_first_has_nothing_to_be_alike(run_for):
    training, teacher = run_for()
    record = Record()
    run(training, [Dynamics(record, teacher)])
    found = over_time(record, training.recipe.schedule)
    assert found["iteration"] == [10, 12]
    assert all(norm > 0 for norm in found["gradient_norm"])
    assert found["batch_similarity"][0] is None
    assert -1 <= found["batch_similarity"][1] <= 1
    assert found["student_learns_from"] == 5


@pytest.mark.parametrize("method", ["adadfq", "acq", "gdfq+ris+agm"])
def test_a_watched_and_diagnosed_run_is_as_one_left_alone(method, run_for):
    watched, teacher = run_for(method)
    alone, _ = run_for(method)
    luck = torch.get_rng_state()
    run(watched, [Dynamics(Record(), teacher)])
    diagnose(watched, teacher, None)
    assert torch.get_rng_state().equal(luck)
    run(alone, [])
    for name, state in alone.state_dict().items():
        assert_equal(watched.state_dict()[name], state)


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
    training, _ = run_for("acq")
    batch = dream(training, torch.Generator().manual_seed(0))
    assert batch.images.shape == (BATCH, 1, 8, 8)
    assert batch.targets[0::2].equal(batch.targets[1::2])
    assert batch.centres[0::2].equal(batch.centres[1::2])
    soft = dream(run_for("ris")[0], torch.Generator().manual_seed(0)).targets
    assert soft.shape == (BATCH, 10)
    asked = torch.arange(6)
    assert dream(training, torch.Generator().manual_seed(0), asked).targets is asked
