"""Runs as lists of phases: determinism, resuming, watchers, losses that are not finite."""

from __future__ import annotations

import pytest
import torch

from dreamquant.errors import TrainingError
from dreamquant.jobs import checkpoint
from dreamquant.terms.contract import weighted
from dreamquant.terms.distillation import KnowledgeDistillation
from dreamquant.training.phase import LOG_EVERY, Phase, Run, run_to_the_end
from tiny_runs import WITH_GENERATOR, short_method, tiny_run, training_of, with_training

# One of each kind: SGD, and a generator that does not ask the student; Adam on trained step sizes;
# re-estimated batch norms; student views with memory.
KINDS = [("gdfq", "paper"), ("adadfq", "quick"), ("adadfq", "quick-imagenet"), ("acq", "quick")]
STEPS = 6


def bytes_of(state):
    """A nested state as comparable values, tensors bit by bit."""
    if isinstance(state, torch.Tensor):
        return state.dtype, tuple(state.shape), state.detach().contiguous().numpy().tobytes()
    if isinstance(state, dict):
        return {key: bytes_of(value) for key, value in state.items()}
    if isinstance(state, list):
        return [bytes_of(value) for value in state]
    return state


# ----------------------------------------------------------------------- determinism


@pytest.mark.parametrize(("method", "preset"), KINDS)
def test_one_seed_gives_one_student(method, preset):
    short = short_method(method, preset)
    once, again = (tiny_run(short, seed=7).steps(4) for _ in range(2))
    assert bytes_of(once.run.state_dict()) == bytes_of(again.run.state_dict())


def test_another_seed_gives_another_student():
    one, other = (tiny_run(short_method(), seed=seed).steps(4) for seed in (0, 1))
    weights = [bytes_of(run.student.state_dict()) for run in (one, other)]
    assert weights[0] != weights[1]


@pytest.mark.parametrize("method", ["adadfq", "acq"])
def test_the_random_state_of_the_process_neither_matters_nor_changes(method):
    torch.manual_seed(1)
    one = tiny_run(short_method(method)).steps(3)
    torch.manual_seed(2)
    before = torch.get_rng_state()
    other = tiny_run(short_method(method)).steps(3)
    assert torch.get_rng_state().equal(before)
    assert bytes_of(one.run.state_dict()) == bytes_of(other.run.state_dict())


# ---------------------------------------------------------------------------- resume


# 0 to 2: at the start, in the middle and at the end of the first phase. Where batch norms are
# re-estimated, 3 is the end of that; the student then learns until 7, and until 6 elsewhere.
@pytest.mark.parametrize(
    ("method", "preset", "stop"),
    [
        *(("adadfq", "quick", stop) for stop in (0, 1, 2, 3, 5, 6)),
        *(("adadfq", "quick-imagenet", stop) for stop in (3, 7)),
        *((method, preset, 5) for method, preset in KINDS),
    ],
)
def test_a_resumed_run_is_the_uninterrupted_one(method, preset, stop, tmp_path):
    short = short_method(method, preset)
    whole = tiny_run(short).to_the_end()
    first = tiny_run(short).steps(stop)
    state = {"configuration": {}, "record": {}, "run": first.run.state_dict()}
    (tmp_path / checkpoint.STATE).write_bytes(checkpoint.encode(state))
    first.to_the_end()  # going on must not reach into what was saved
    # Another seed, so that nothing but the checkpoint can explain equality.
    second = tiny_run(short, seed=99)
    second.run.load_state_dict(checkpoint.read(tmp_path)["run"])
    assert second.run.done == stop
    second.to_the_end()
    assert second.run.ended == whole.run.ended
    assert bytes_of(second.run.state_dict()) == bytes_of(whole.run.state_dict())
    assert bytes_of(first.run.state_dict()) == bytes_of(whole.run.state_dict())


class Counting(Phase):
    """Notes when it is made and each step, and what the student's bias was when it was made."""

    def __init__(self, name, total, bench, notes):
        super().__init__()
        self.name, self.total, self.bench, self.notes = name, total, bench, notes
        notes.append(f"{name} made, bias {self.bias:g}")

    @property
    def bias(self):
        return float(self.bench.student.network[8].bias.data[0])

    def step(self):
        self.bench.student.network[8].bias.data += 1
        self.notes.append(f"{self.name} {self.done + 1}")
        return {}

    def state_dict(self):
        return {"name": self.name}

    def load_state_dict(self, state):
        assert state == {"name": self.name}


def counting(notes, lengths=(("a", 2), ("b", 1), ("c", 3))):
    """A run of such phases on the tiny network, its student's bias 0 to begin with."""
    bench = tiny_run(short_method()).bench
    bench.student.network[8].bias.data.zero_()
    return Run(bench, (Counting(name, total, bench, notes) for name, total in lengths))


def test_a_phase_is_made_when_the_one_before_it_is_over():
    notes = []
    run = counting(notes)
    assert (run.phase, run.done, notes) == (None, 0, [])
    run_to_the_end(run, [])
    made = ["a made, bias 0", "b made, bias 2", "c made, bias 3"]
    assert notes == [made[0], "a 1", "a 2", made[1], "b 1", made[2], "c 1", "c 2", "c 3"]
    assert run.ended == [("a", 2), ("b", 1), ("c", 3)]
    assert (run.done, run.index, run.phase.name) == (6, 2, "c")


@pytest.mark.parametrize(
    ("stop", "left"),
    [
        (1, ["a 2", "b 1", "c 1", "c 2", "c 3"]),
        (2, ["b 1", "c 1", "c 2", "c 3"]),
        (3, ["c 1", "c 2", "c 3"]),
        (5, ["c 3"]),
        (6, []),
    ],
)
def test_phases_that_ended_are_made_and_not_run_again(stop, left):
    first, notes = counting([]), []
    for _, _ in zip(range(stop), first.steps(), strict=False):
        pass
    second = counting(notes)
    second.load_state_dict(first.state_dict())
    assert second.done == stop
    assert not [note for note in notes if "made" not in note]
    run_to_the_end(second, [])
    assert [note for note in notes if "made" not in note] == left
    assert second.phase.bias == 6
    assert second.ended == [("a", 2), ("b", 1), ("c", 3)]


def test_a_checkpoint_of_more_phases_does_not_fit():
    first = counting([])
    run_to_the_end(first, [])
    with pytest.raises(LookupError, match="fewer phases"):
        counting([], lengths=[("a", 2)]).load_state_dict(first.state_dict())


def test_a_phase_without_steps_does_not_count():
    notes = []
    run = counting(notes, lengths=[("a", 0), ("b", 1)])
    run_to_the_end(run, [])
    assert notes == ["a made, bias 0", "b made, bias 0", "b 1"]
    assert (run.done, run.index, run.ended) == (1, 0, [("b", 1)])


def test_a_run_without_phases_is_over_and_can_be_saved():
    run = counting([], lengths=[])
    run_to_the_end(run, [lambda *_: pytest.fail("an iteration too many")])
    assert (run.phase, run.done) == (None, 0)
    again = counting([], lengths=[])
    again.load_state_dict(run.state_dict())
    assert again.done == 0


# --------------------------------------------------------------------- losses and NaN


def terms_of(method):
    short = short_method(method)
    generator = [("generator", w.term) for w in weighted(short.images.terms)]
    return generator + [("student", w.term) for w in weighted(training_of(short).terms)]


# Each kind of term once for each player, however many methods have it.
EVERY_TERM = {
    (player, type(term)): (method, player, term)
    for method in WITH_GENERATOR
    for player, term in terms_of(method)
}.values()
BROKEN = [
    *((*each, "nan") for each in EVERY_TERM),
    *((*each, value) for each in list(EVERY_TERM)[:1] for value in ("inf", "-inf")),
]


def breaking(monkeypatch, term, value, calls_before=0):
    """Let a term's loss become ``value`` after so many healthy calls."""
    healthy, calls = type(term).__call__, []

    def broken(self, step):
        calls.append(step)
        loss = healthy(self, step)
        return loss + value if len(calls) > calls_before else loss

    monkeypatch.setattr(type(term), "__call__", broken)


@pytest.mark.parametrize(
    ("method", "player", "term", "value"),
    BROKEN,
    ids=[f"{player}-{type(term).__name__}-{value}" for _, player, term, value in BROKEN],
)
def test_a_loss_that_is_not_finite_is_named(method, player, term, value, monkeypatch):
    breaking(monkeypatch, term, float(value))
    run = tiny_run(short_method(method, alone=0, learn=1))
    with pytest.raises(TrainingError) as e:
        run.to_the_end()
    prefix, _, named = e.value.what.partition(": ")
    assert prefix == "the loss is not finite"
    assert f"{player}/{type(term).__name__}" in named.split(", ")
    # Alone, but for its second reading on mixed images.
    assert {name.split("/")[1] for name in named.split(", ")} == {type(term).__name__}
    assert e.value.where == "iteration 1"
    assert "checkpoint" in e.value.remedy


def test_a_nan_between_two_readings_is_told_with_its_own_iteration(monkeypatch):
    method = short_method(learn=38)
    breaking(monkeypatch, training_of(method).terms[0], float("nan"), calls_before=10)
    with pytest.raises(TrainingError) as e:
        tiny_run(method).to_the_end()
    # By the next reading, nothing else is finite either.
    assert e.value.what == "the loss is not finite: student/DifferenceEntropy"
    assert e.value.where == "iteration 13"


def test_watchers_see_every_iteration_and_losses_now_and_then():
    method = short_method(learn=2 * LOG_EVERY + 1)
    seen = []
    tiny_run(method).to_the_end(lambda run, losses: seen.append((run.done, losses)))
    assert [iteration for iteration, _ in seen] == list(range(1, 24))
    # At the end of each phase too: 2 and 23.
    assert [iteration for iteration, losses in seen if losses is not None] == [2, 10, 20, 23]
    names = [f"{player}/{type(term).__name__}" for player, term in terms_of("adadfq")]
    assert sorted(seen[-1][1]) == sorted(names)
    assert all(isinstance(value, float) for value in seen[-1][1].values())


def test_during_warm_up_only_the_generators_losses_are_told():
    losses = tiny_run(short_method("gdfq")).step()
    assert sorted(losses) == ["generator/BatchNormStatistics", "generator/TeacherCrossEntropy"]


def test_a_run_that_is_over_has_no_steps_left():
    run = tiny_run(short_method()).to_the_end()
    before, ended = bytes_of(run.run.state_dict()), list(run.run.ended)
    run.to_the_end(lambda *_: pytest.fail("an iteration too many"))
    assert bytes_of(run.run.state_dict()) == before
    assert (run.run.ended, run.run.done) == (ended, STEPS)


def test_a_term_may_come_twice_with_other_numbers():
    terms = (KnowledgeDistillation(20), 0.5 * KnowledgeDistillation(2))
    losses = tiny_run(with_training(short_method("gdfq", alone=1), terms=terms)).steps(1).step()
    first, second = (losses[f"student/KnowledgeDistillation{n}"].item() for n in ("", "2"))
    assert first != second


def test_learning_rates_are_those_of_the_parts():
    method = short_method(train={"lr": 0.5}, images={"lr": 0.25})
    run, training = tiny_run(method), training_of(method)
    for iteration in range(STEPS):
        run.step()
        wanted = 0.25 * method.images.decay.factor(iteration, STEPS)
        assert run.images.optimizer.rate == wanted
        if iteration >= 2:
            wanted = 0.5 * training.decay.factor(iteration - 2, 4)
            assert run.run.phase.learner.optimizer.rate == wanted
