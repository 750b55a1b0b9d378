from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from dreamquant.errors import TrainingError
from dreamquant.jobs import checkpoint
from dreamquant.methods import METHODS
from dreamquant.terms.contract import Weighted
from dreamquant.terms.distillation import KnowledgeDistillation
from dreamquant.training.loop import LOG_EVERY, run

PRESETS = [
    *((method, "quick") for method in METHODS),
    *((method, preset) for method in ("gdfq", "adadfq") for preset in ("paper", "quick-imagenet")),
]


def bytes_of(state):
    """A nested state as comparable values, tensors bit by bit."""
    if isinstance(state, torch.Tensor):
        return state.dtype, tuple(state.shape), state.detach().contiguous().numpy().tobytes()
    if isinstance(state, dict):
        return {key: bytes_of(value) for key, value in state.items()}
    if isinstance(state, list):
        return [bytes_of(value) for value in state]
    return state


def steps(training, count):
    for _ in range(count):
        training.step()
    return training


# ----------------------------------------------------------------------- determinism


@pytest.mark.parametrize(("method", "preset"), PRESETS)
def test_one_seed_gives_one_student(method, preset, recipe_for, training_for):
    recipe = recipe_for(method, preset)
    once, again = (steps(training_for(recipe, seed=7), 4) for _ in range(2))
    assert bytes_of(once.state_dict()) == bytes_of(again.state_dict())


def test_another_seed_gives_another_student(recipe_for, training_for):
    one, other = (steps(training_for(recipe_for(), seed=seed), 4) for seed in (0, 1))
    weights = [bytes_of(t.student.state_dict()) for t in (one, other)]
    assert weights[0] != weights[1]


@pytest.mark.parametrize("method", METHODS)
def test_the_random_state_of_the_process_neither_matters_nor_changes(
    method, recipe_for, training_for
):
    torch.manual_seed(1)
    one = steps(training_for(recipe_for(method)), 3)
    torch.manual_seed(2)
    before = torch.get_rng_state()
    other = steps(training_for(recipe_for(method)), 3)
    assert torch.get_rng_state().equal(before)
    assert bytes_of(one.state_dict()) == bytes_of(other.state_dict())


# ---------------------------------------------------------------------------- resume


@pytest.mark.parametrize("stop", [0, 1, 2, 3, 5, 6])
@pytest.mark.parametrize(("method", "preset"), PRESETS)
def test_a_resumed_run_is_the_uninterrupted_one(
    method, preset, stop, recipe_for, training_for, tmp_path
):
    recipe = recipe_for(method, preset)
    whole = steps(training_for(recipe), 6)
    first = steps(training_for(recipe), stop)
    state = {"configuration": {}, "record": {}, "training": first.state_dict()}
    (tmp_path / checkpoint.STATE).write_bytes(checkpoint.encode(state))
    steps(first, 6 - stop)  # going on must not reach into what was saved
    # Another seed, so that nothing but the checkpoint can explain equality.
    second = training_for(recipe, seed=99)
    second.load_state_dict(checkpoint.read(tmp_path)["training"])
    assert second.iteration == stop
    steps(second, 6 - stop)
    assert bytes_of(second.state_dict()) == bytes_of(whole.state_dict())
    assert bytes_of(first.state_dict()) == bytes_of(whole.state_dict())


# ---------------------------------------------------------------------- batch norms


def norms_of(training):
    """Copies of the student's batch-norm statistics."""
    return {
        name: buffer.clone()
        for name, buffer in training.student.network.named_buffers()
        if "running" in name
    }


@pytest.mark.parametrize(
    ("warmups", "at"),
    [
        ({"student_warmup": 2, "range_warmup": 2}, 2),
        ({"student_warmup": 3, "range_warmup": 1}, 3),
        ({"student_warmup": 1, "range_warmup": 3}, 3),
    ],
)
def test_batch_norms_are_matched_once_when_warm_up_is_over(warmups, at, recipe_for, training_for):
    training = training_for(replace(recipe_for(**warmups), norms="matched"))
    for iteration in range(6):
        before = norms_of(training)
        training.step()
        changed = [
            name for name, value in norms_of(training).items() if not value.equal(before[name])
        ]
        assert len(changed) == (len(before) if iteration == at else 0), iteration


@pytest.mark.parametrize("preset", ["paper", "quick"])
def test_batch_norms_are_kept_where_the_recipe_says_so(preset, recipe_for, training_for):
    recipe = recipe_for("adadfq", preset)
    assert recipe.norms == "kept"
    training = training_for(recipe)
    before = norms_of(training)
    steps(training, 6)
    assert all(value.equal(before[name]) for name, value in norms_of(training).items())


# --------------------------------------------------------------------- losses and NaN


def terms_of(method):
    recipe = METHODS[method].recipe("quick", (1, 8, 8))
    generator = [("generator", weighted.term) for weighted in recipe.generator_terms]
    return generator + [("student", weighted.term) for weighted in recipe.student_terms]


EVERY_TERM = [(method, *pair) for method in METHODS for pair in terms_of(method)]
BROKEN = {"nan": float("nan"), "inf": float("inf"), "-inf": float("-inf")}


def breaking(monkeypatch, term, value, calls_before=0):
    """Let a term's loss become ``value`` after so many healthy calls."""
    healthy, calls = type(term).__call__, []

    def broken(self, step):
        calls.append(step)
        loss = healthy(self, step)
        return loss + value if len(calls) > calls_before else loss

    monkeypatch.setattr(type(term), "__call__", broken)


@pytest.mark.parametrize("value", BROKEN.values(), ids=BROKEN)
@pytest.mark.parametrize(
    ("method", "player", "term"),
    EVERY_TERM,
    ids=[f"{method}-{player}-{type(term).__name__}" for method, player, term in EVERY_TERM],
)
def test_a_loss_that_is_not_finite_is_named(
    method, player, term, value, monkeypatch, recipe_for, training_for
):
    breaking(monkeypatch, term, value)
    training = training_for(recipe_for(method, iterations=1, student_warmup=0))
    with pytest.raises(TrainingError) as e:
        run(training, [])
    prefix, _, named = e.value.what.partition(": ")
    assert prefix == "the loss is not finite"
    assert f"{player}/{type(term).__name__}" in named.split(", ")
    # Alone, but for its second reading on mixed images.
    assert {name.split("/")[1] for name in named.split(", ")} == {type(term).__name__}
    assert e.value.where == "iteration 1"
    assert "checkpoint" in e.value.remedy


def test_a_nan_between_two_readings_is_told_with_its_own_iteration(
    monkeypatch, recipe_for, training_for
):
    training = training_for(recipe_for(iterations=40))
    breaking(monkeypatch, training.recipe.student_terms[0].term, float("nan"), calls_before=10)
    with pytest.raises(TrainingError) as e:
        run(training, [])
    # By the next reading, nothing else is finite either.
    assert e.value.what == "the loss is not finite: student/DifferenceEntropy"
    assert e.value.where == "iteration 13"


def test_watchers_see_every_iteration_and_losses_now_and_then(recipe_for, training_for):
    training = training_for(recipe_for(iterations=2 * LOG_EVERY + 3))
    seen = []
    run(training, [lambda training, losses: seen.append((training.iteration, losses))])
    assert [iteration for iteration, _ in seen] == list(range(1, 24))
    assert [iteration for iteration, losses in seen if losses is not None] == [10, 20, 23]
    names = [f"{player}/{type(term).__name__}" for player, term in terms_of("adadfq")]
    assert sorted(seen[-1][1]) == sorted(names)
    assert all(isinstance(value, float) for value in seen[-1][1].values())


def test_during_warm_up_only_the_generators_losses_are_told(recipe_for, training_for):
    losses = training_for(recipe_for("gdfq")).step()
    assert sorted(losses) == ["generator/BatchNormStatistics", "generator/TeacherCrossEntropy"]


def test_a_finished_run_plays_no_more(recipe_for, training_for):
    training = training_for(recipe_for(iterations=2))
    run(training, [])
    before = bytes_of(training.state_dict())
    run(training, [lambda *_: pytest.fail("an iteration too many")])
    assert bytes_of(training.state_dict()) == before


def test_a_term_may_come_twice_with_other_numbers(recipe_for, training_for):
    terms = (Weighted(1.0, KnowledgeDistillation(20)), Weighted(0.5, KnowledgeDistillation(2)))
    recipe = replace(recipe_for("gdfq", student_warmup=0), student_terms=terms)
    losses = training_for(recipe).step()
    first, second = (losses[f"student/KnowledgeDistillation{n}"].item() for n in ("", "2"))
    assert first != second


# -------------------------------------------------------------------------- the images


@pytest.mark.parametrize("batch", [2, 4, 7])
def test_images_come_in_the_schedules_number(batch, recipe_for, training_for):
    training = training_for(recipe_for(batch=batch))
    asked = training.ask(batch)
    drawn = training.invent(asked)
    assert drawn.targets.shape == (batch,)
    assert drawn.images.shape == (batch, 1, 8, 8)
    again = training.ask(batch, asked.targets)
    assert again.targets is asked.targets
    assert not training.invent(again).images.equal(drawn.images)


def test_learning_rates_are_the_schedules(recipe_for, training_for):
    training = training_for(recipe_for())
    schedule = training.recipe.schedule
    for iteration in range(6):
        training.step()
        assert training.generator_optimizer.rate == schedule.generator_rate(iteration)
        if iteration >= schedule.student_warmup:
            assert training.student_optimizer.rate == schedule.student_rate(iteration)
