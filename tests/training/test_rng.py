from __future__ import annotations

from itertools import combinations

import pytest
import torch

from dreamquant.training.rng import Rng

CPU = torch.device("cpu")


def drawn(rng):
    return {name: torch.rand(5, generator=generator) for name, generator in vars(rng).items()}


def test_one_seed_gives_the_same_numbers_and_another_others():
    one, again, other = (drawn(Rng.seeded(seed, CPU)) for seed in (3, 3, 4))
    assert all(one[name].equal(again[name]) for name in one)
    assert not any(one[name].equal(other[name]) for name in one)


def test_what_images_are_asked_for_does_not_depend_on_what_terms_draw():
    rng, other = (Rng.seeded(3, CPU) for _ in range(2))
    torch.rand(1000, generator=other.random)
    torch.rand(7, generator=other.choice)
    assert torch.rand(5, generator=rng.asked).equal(torch.rand(5, generator=other.asked))


@pytest.mark.parametrize("seed", [0, 3, 2**31, 2**32 - 1, 2**32])
def test_the_generators_of_one_seed_draw_different_numbers(seed):
    found = drawn(Rng.seeded(seed, CPU))
    for one, other in combinations(found.values(), 2):
        assert not one.equal(other)


def test_a_restored_state_goes_on_the_same():
    rng = Rng.seeded(3, CPU)
    drawn(rng)
    state = rng.state_dict()
    wanted = drawn(rng)
    restored = Rng.seeded(99, CPU)
    restored.load_state_dict(state)
    found = drawn(restored)
    assert all(found[name].equal(wanted[name]) for name in wanted)
