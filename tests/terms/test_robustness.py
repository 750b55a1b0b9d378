from __future__ import annotations

import numpy as np
import pytest
import torch

from dreamquant.terms.robustness import InputRobustness, WeightRobustness, inconsistency
from given_steps import given_view


def answers(count, seed=0):
    """Outputs and last feature maps, as ``given_view`` takes them."""
    rng = np.random.default_rng(seed)
    return [
        {
            "output": torch.tensor(rng.normal(size=(3, 5))),
            "last_map": torch.tensor(rng.random((3, 4, 2, 2))),
        }
        for _ in range(count)
    ]


def views(given):
    return [given_view(**answer) for answer in given]


def by_hand(clean, perturbed):
    def softmax(z):
        e = np.exp(z - z.max())
        return e / e.sum()

    rows = np.zeros((2, len(clean["output"])))
    for other in perturbed:
        for i in range(len(clean["output"])):
            f = clean["last_map"][i].numpy().mean((1, 2))
            g = other["last_map"][i].numpy().mean((1, 2))
            p, q = softmax(clean["output"][i].numpy()), softmax(other["output"][i].numpy())
            rows[0, i] += 1 - f @ g / (np.linalg.norm(f) * np.linalg.norm(g))
            rows[1, i] += np.abs(p - q).sum()
    return rows / len(perturbed)


@pytest.mark.parametrize("perturbations", [1, 3])
def test_inconsistency_is_the_equation(perturbations):
    clean, *others = answers(1 + perturbations)
    found = inconsistency(given_view(**clean), views(others))
    np.testing.assert_allclose(found, by_hand(clean, others), rtol=1e-10)


def test_inconsistency_of_an_unchanged_answer_is_zero():
    (clean,) = views(answers(1))
    assert inconsistency(clean, [clean]).abs().max() < 1e-6


@pytest.mark.parametrize(
    "term", [InputRobustness(views=2, threshold=0.5), WeightRobustness(copies=2, threshold=0.5)]
)
def test_loss_is_the_excess_over_the_noise_reference(term, step_for):
    clean, *others = answers(3)
    reference = torch.tensor([[0.1, 0.3], [0.2, 0.6]], dtype=torch.float64)
    step = step_for(
        term,
        teacher=clean,
        others=views(others),
        images=torch.zeros(3, 1, 8, 8),
        choice=torch.Generator().manual_seed(0),
        reference=lambda measure: reference,
    )
    found = by_hand(clean, others)
    wanted = sum(np.maximum(found[k] - 0.5 * [0.2, 0.4][k], 0).mean() for k in range(2))
    assert term(step).item() == pytest.approx(wanted, rel=1e-10)
