"""Losses and networks that are no numbers stop a run; what was saved before is kept."""

from __future__ import annotations

import importlib
import pkgutil

import pytest
import torch

from dreamquant import terms
from dreamquant.errors import TrainingError
from dreamquant.jobs.checkpoint import STATE, encode, read
from dreamquant.jobs.watchers import Checkpoints, Record
from dreamquant.methods import METHODS
from dreamquant.terms.contract import Term
from dreamquant.training.finite import require_finite_networks
from dreamquant.training.loop import LOG_EVERY, run


def every_term():
    """All terms of the package, whichever method has them."""
    for module in pkgutil.iter_modules(terms.__path__, f"{terms.__name__}."):
        importlib.import_module(module.name)
    return sorted(Term.__subclasses__(), key=lambda term: term.__name__)


def method_with(term):
    """A method that has a term, and the players who do."""
    for name, method in METHODS.items():
        recipe = method.recipe("quick", (1, 8, 8))
        sides = {"generator": recipe.generator_terms, "student": recipe.student_terms}
        players = [
            player for player, side in sides.items() if any(type(w.term) is term for w in side)
        ]
        if players:
            return name, players
    return pytest.fail(f"no method has {term.__name__}, so nothing tests it")


def save_often(monkeypatch, folder):
    """A watcher that saves whenever losses were found finite."""
    monkeypatch.setattr("dreamquant.jobs.watchers._SHORTEST", 0.0)
    monkeypatch.setattr("dreamquant.jobs.watchers._LONGEST", 0.0)
    return Checkpoints(folder, lambda path, data: path.write_bytes(data), {}, Record())


@pytest.mark.parametrize("term", every_term(), ids=lambda term: term.__name__)
def test_a_term_that_goes_nan_is_named_and_the_last_good_checkpoint_kept(
    term, monkeypatch, recipe_for, training_for, tmp_path
):
    method, players = method_with(term)
    recipe = recipe_for(method, iterations=2 * LOG_EVERY, student_warmup=2)
    whole = training_for(recipe)
    run(whole, [])
    training, healthy = training_for(recipe), term.__call__
    broken_at = LOG_EVERY + 3

    def breaks(self, step):
        nan = torch.nan if training.iteration == broken_at - 1 else 0.0
        return healthy(self, step) + nan

    with monkeypatch.context() as patched:
        patched.setattr(term, "__call__", breaks)
        with pytest.raises(TrainingError) as e:
            run(training, [save_often(patched, tmp_path)])
    assert e.value.where == f"iteration {broken_at}"
    named = e.value.what.partition(": ")[2].split(", ")
    assert {name.split("/")[1].rstrip("0123456789") for name in named} == {term.__name__}
    assert {name.split("/")[0] for name in named} <= {*players, "mixed"}
    assert "checkpoint is kept" in e.value.remedy
    saved = read(tmp_path)["training"]
    assert saved["iteration"] == LOG_EVERY
    # It is a good one: the run goes on from it as if nothing had happened.
    again = training_for(recipe, seed=99)
    again.load_state_dict(saved)
    run(again, [])
    assert encode(again.state_dict()) == encode(whole.state_dict())


@pytest.mark.parametrize("player", ["generator", "student"])
def test_a_network_that_is_no_number_is_not_saved(player, recipe_for, training_for, tmp_path):
    training = training_for(recipe_for())
    saving = Checkpoints(tmp_path, lambda path, data: path.write_bytes(data), {}, Record())
    saving.save(training)
    before = (tmp_path / STATE).read_bytes()
    name, parameter = next(iter(getattr(training, player).named_parameters()))
    parameter.data.view(-1)[0] = torch.inf
    with pytest.raises(TrainingError) as e:
        saving.save(training)
    assert e.value.what == f"not finite: {player}'s {name}"
    assert e.value.where == "iteration 0"
    assert (tmp_path / STATE).read_bytes() == before


def test_a_network_that_breaks_in_the_last_update_is_no_result(
    monkeypatch, recipe_for, training_for
):
    training = training_for(recipe_for())
    update = training._update

    def last():
        update()
        if training.iteration == training.recipe.schedule.iterations - 1:
            training.student_parameters[0].data.fill_(torch.nan)

    monkeypatch.setattr(training, "_update", last)
    with pytest.raises(TrainingError, match="not finite: student's"):
        run(training, [])


def test_ordinary_networks_are_finite(recipe_for, training_for):
    training = training_for(recipe_for())
    run(training, [])
    require_finite_networks(training)  # and does not raise
    assert all(p.isfinite().all() for p in training.student_parameters)
    assert all(p.isfinite().all() for p in training.generator_parameters)
