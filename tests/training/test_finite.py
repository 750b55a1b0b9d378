"""Losses and networks that are not finite stop a run; earlier checkpoints are kept."""

from __future__ import annotations

import pytest
import torch

from dreamquant.errors import TrainingError
from dreamquant.jobs.checkpoint import STATE, encode, read
from dreamquant.jobs.watchers import Checkpoints, Record
from dreamquant.terms.contract import weighted
from dreamquant.terms.distillation import KnowledgeDistillation
from dreamquant.terms.slack import SlackStatistics
from dreamquant.terms.statistics import BatchNormStatistics
from dreamquant.training.finite import require_finite_networks
from dreamquant.training.phase import LOG_EVERY
from given_steps import every_term
from tiny_runs import (
    WITH_GENERATOR,
    short_method,
    tiny_run,
    training_of,
    with_images,
    with_training,
)


def method_with(kind, **numbers):
    """A method with a generator that has a term of this kind, and the players who do."""
    for name in WITH_GENERATOR:
        method = short_method(name, **numbers)
        sides = {"generator": method.images.terms, "student": training_of(method).terms}
        players = [
            player
            for player, side in sides.items()
            if any(type(w.term) is kind for w in weighted(side))
        ]
        if players:
            return method, players
    method = short_method("gdfq", **numbers)
    (term,) = (term for term in every_term() if type(term) is kind)
    if term.student_taps:
        return with_training(method, terms=[term]), ["student"]
    return with_images(method, terms=[term]), ["generator"]


def save_often(monkeypatch, folder):
    """A watcher that saves whenever losses were found finite."""
    monkeypatch.setattr("dreamquant.jobs.watchers._SHORTEST", 0.0)
    monkeypatch.setattr("dreamquant.jobs.watchers._LONGEST", 0.0)
    return Checkpoints(folder, lambda path, data: path.write_bytes(data), {}, Record())


# Of a generator, of a student, and one that only stored images minimise.
KINDS = [BatchNormStatistics, KnowledgeDistillation, SlackStatistics]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_a_term_that_goes_nan_is_named_and_the_last_good_checkpoint_kept(
    kind, monkeypatch, tmp_path
):
    method, players = method_with(kind, learn=2 * LOG_EVERY)
    whole = tiny_run(method).to_the_end()
    broken, healthy = tiny_run(method), kind.__call__
    broken_at = LOG_EVERY + 3

    def breaks(self, step):
        nan = torch.nan if broken.run.done == broken_at - 1 else 0.0
        return healthy(self, step) + nan

    with monkeypatch.context() as patched:
        patched.setattr(kind, "__call__", breaks)
        with pytest.raises(TrainingError) as e:
            broken.to_the_end(save_often(patched, tmp_path))
    assert e.value.where == f"iteration {broken_at}"
    named = e.value.what.partition(": ")[2].split(", ")
    assert {name.split("/")[1].rstrip("0123456789") for name in named} == {kind.__name__}
    assert {name.split("/")[0] for name in named} <= {*players, "mixup"}
    assert "checkpoint is kept" in e.value.remedy
    # It is a good one: the run goes on from it as if nothing had happened.
    again = tiny_run(method, seed=99)
    again.run.load_state_dict(read(tmp_path)["run"])
    assert again.run.done == LOG_EVERY
    again.to_the_end()
    assert encode(again.run.state_dict()) == encode(whole.run.state_dict())


@pytest.mark.parametrize("player", ["generator", "student"])
def test_a_network_that_is_not_finite_is_not_saved(player, tmp_path):
    run = tiny_run(short_method()).steps(3)
    saving = Checkpoints(tmp_path, lambda path, data: path.write_bytes(data), {}, Record())
    saving.save(run.run)
    before = (tmp_path / STATE).read_bytes()
    name, parameter = next(iter(getattr(run, player).named_parameters()))
    parameter.data.view(-1)[0] = torch.inf
    with pytest.raises(TrainingError) as e:
        saving.save(run.run)
    assert e.value.what == f"not finite: {player}'s {name}"
    assert e.value.where == "iteration 3"
    assert (tmp_path / STATE).read_bytes() == before


def test_a_network_that_breaks_in_the_last_update_is_no_result():
    run = tiny_run(short_method())

    def break_at_the_end(seen, losses):
        if seen.done == 6:
            run.student_parameters[0].data.fill_(torch.nan)

    with pytest.raises(TrainingError, match="not finite: student's"):
        run.to_the_end(break_at_the_end)


def test_ordinary_networks_are_finite():
    run = tiny_run(short_method()).to_the_end()
    require_finite_networks({"student": run.student, "generator": run.generator}, 6)
    assert all(p.isfinite().all() for p in run.student_parameters)
    assert all(p.isfinite().all() for p in run.generator_parameters)


def test_of_many_broken_tensors_the_first_are_named():
    network = torch.nn.Sequential(*(torch.nn.Linear(1, 1) for _ in range(3)))
    for parameter in network.parameters():
        parameter.data.fill_(torch.nan)
    with pytest.raises(TrainingError, match="and 3 more tensors") as e:
        require_finite_networks({"student": network}, 4)
    assert "student's 0.weight, student's 0.bias, student's 1.weight" in e.value.what
