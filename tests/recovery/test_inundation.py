"""AIT's gradient inundation: the smallest factor that changes enough codes."""

from __future__ import annotations

import pytest
import torch

from dreamquant.errors import MethodError
from dreamquant.methods import find_method
from dreamquant.methods.method import AddOn
from dreamquant.recovery.inundation import Inundation
from dreamquant.terms.contract import weighted
from tiny_runs import short_method, tiny_run, training_of


def codes(weight):
    return weight.round()


def changed(old, update, factor):
    return (codes(old + factor * update) != codes(old)).double().mean().item()


@pytest.mark.parametrize("wanted", [0.01, 0.1, 0.5])
def test_the_factor_is_the_least_that_changes_enough_codes(wanted) -> None:
    random = torch.Generator().manual_seed(0)
    old, update = torch.randn(2, 400, generator=random).double()
    factor = Inundation(halvings=30).factor(old, update * 1e-4, codes, wanted)
    assert factor > 1
    assert changed(old, update * 1e-4, factor) >= wanted
    assert changed(old, update * 1e-4, factor * (1 - 1e-6)) < wanted


def test_an_update_that_changes_enough_is_left() -> None:
    old = torch.linspace(-2, 2, 101).double()
    assert Inundation().factor(old, torch.full_like(old, 0.5), codes, 0.1) == 1


def test_an_update_of_zero_ends() -> None:
    old = torch.randn(10)
    factor = Inundation(most=8.0).factor(old, torch.zeros(10), codes, 0.1)
    assert factor <= 8


def test_steps_of_a_run_change_codes_that_would_stand() -> None:
    def moved(**train):
        run = tiny_run(
            short_method(
                "gdfq", train={"lr": 1e-9, "optimizer": "sgd", "weight_decay": 0.0, **train}
            )
        )
        run.steps(3)  # two of the generator alone; the rate of the first step is small
        before = [q.codes(w.detach()) for w, q in run.student.quantized_weights().values()]
        run.step()
        after = [q.codes(w.detach()) for w, q in run.student.quantized_weights().values()]
        gaps = zip(before, after, strict=True)
        return [(a != b).double().mean().item() for a, b in gaps]

    assert max(moved()) == 0
    assert min(moved(inundation=Inundation(fraction=0.2, most=2.0**40))) > 0


def test_weights_do_not_decay_meanwhile() -> None:
    with pytest.raises(MethodError, match="only where weights do not decay"):
        short_method("gdfq", train={"inundation": Inundation(), "weight_decay": 1e-4})


def test_larger_images_ask_for_less() -> None:
    asked = Inundation()
    assert asked.wanted((3, 32, 32)) == 1e-3
    assert asked.wanted((3, 64, 64)) == 1e-3
    assert asked.wanted((3, 224, 224)) == 1e-4


@pytest.mark.parametrize("name", ["ait", "adadfq+ait", "qimera+ait", "akt+ait", "adadfq+ait+akt"])
def test_the_divergence_takes_the_place_of_the_students_own_terms(name) -> None:
    train = training_of(find_method(name).resolved("paper", (3, 32, 32)))
    names = [term.name for term in weighted(train.terms)]
    others = {"SpatialAttentionDistillation", "ChannelAttentionDistillation"}
    assert names[0] == "KnowledgeDistillation"
    assert set(names[1:]) == (others if "akt" in name else set())
    assert train.weight_decay == 0
    assert train.inundation == Inundation()


def test_two_add_ons_that_train_in_their_own_way_are_refused() -> None:
    ait = find_method("ait")
    (own,) = ait.add_ons
    other = AddOn("other", "another", own.paper, training={"lr": 1.0})
    with pytest.raises(MethodError, match="ait and other each train the student"):
        ait + other
