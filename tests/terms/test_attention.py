from __future__ import annotations

import numpy as np
import pytest
import torch

from dreamquant.terms.attention import (
    CENTRE,
    CentreMatching,
    ModeConsistency,
    PairDiversity,
    attention_centre,
    attention_map,
)
from given_steps import given_view


def activation(seed=0, batch=4):
    return torch.tensor(np.random.default_rng(seed).random((batch, 3, 4, 5)))


def map_by_hand(a):
    energy = (a.numpy() ** 2).sum(1)
    return energy / energy.sum((1, 2), keepdims=True)


def centre_by_hand(m):
    centres = np.zeros((len(m), 2))
    for i, u, v in np.ndindex(*m.shape):
        centres[i] += m[i, u, v] * np.array([(u + 0.5) / m.shape[1], (v + 0.5) / m.shape[2]])
    return centres


def test_map_and_centre_are_the_equations():
    a = activation()
    m = map_by_hand(a)
    np.testing.assert_allclose(attention_map(a), m)
    np.testing.assert_allclose(attention_centre(attention_map(a)), centre_by_hand(m), rtol=1e-6)


def test_centre_of_one_bright_corner():
    a = torch.zeros(1, 1, 4, 4)
    a[0, 0, 0, 3] = 2
    np.testing.assert_allclose(attention_centre(attention_map(a)), [[0.125, 0.875]])


def test_dead_map_gives_no_nan():
    assert attention_map(torch.zeros(1, 2, 3, 3)).isfinite().all()


def test_centre_matching_is_the_equation(step_for):
    a, asked = activation(), {CENTRE: torch.rand(4, 2, dtype=torch.float64)}
    term = CentreMatching()
    step = step_for(term, teacher={"last_map": a}, condition=asked.__getitem__)
    gap = centre_by_hand(map_by_hand(a)) - asked[CENTRE].numpy()
    assert term(step).item() == pytest.approx((gap**2).sum(1).mean(), rel=1e-6)


@pytest.mark.parametrize("cap", [0.05, 10.0])
def test_pair_diversity_is_the_equation(cap, step_for):
    a, z = activation(1), np.random.default_rng(1).normal(size=(4, 7))
    f = a.numpy().mean((2, 3))
    term = PairDiversity(cap)
    step = step_for(term, teacher={"last_map": a}, latent=torch.tensor(z))
    ratios = [
        min(np.abs(f[i] - f[i + 1]).mean() / np.abs(z[i] - z[i + 1]).mean(), cap) for i in (0, 2)
    ]
    assert term(step).item() == pytest.approx(-np.mean(ratios))


def test_mode_consistency_is_the_equation(step_for):
    a, b = activation(0), activation(1)
    term = ModeConsistency()
    step = step_for(term, teacher={"last_map": a}, others=[given_view(last_map=b)])
    gap = map_by_hand(a) - map_by_hand(b)
    wanted = (gap**2).sum((1, 2)).mean() * 20
    assert term(step).item() == pytest.approx(wanted)
