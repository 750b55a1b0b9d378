from __future__ import annotations

import pytest
import torch

from dreamquant.synthesis.class_mixtures import SimilarClasses
from dreamquant.synthesis.targets import OneHot


def drawn(batch, classes, seed):
    return OneHot().sample(batch, classes, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("classes", [2, 10, 1000])
def test_labels_are_uniform_over_all_classes(classes):
    labels = drawn(100 * classes, classes, seed=0)
    assert labels.dtype == torch.int64
    counts = torch.bincount(labels, minlength=classes).double()
    assert len(counts) == classes
    # Pearson's statistic has mean C - 1 and variance 2 (C - 1): five deviations above is no chance.
    statistic = ((counts - 100) ** 2 / 100).sum().item()
    assert statistic < (classes - 1) + 5 * (2 * (classes - 1)) ** 0.5


def test_one_seed_draws_the_same_and_another_does_not():
    assert drawn(64, 10, seed=3).equal(drawn(64, 10, seed=3))
    assert not drawn(64, 10, seed=3).equal(drawn(64, 10, seed=4))


def test_labels_come_from_the_generator_given_and_from_nothing_else():
    random = torch.Generator().manual_seed(0)
    before = torch.get_rng_state()
    first, second = (OneHot().sample(64, 10, random) for _ in range(2))
    assert not first.equal(second)
    assert torch.get_rng_state().equal(before)


@pytest.mark.parametrize(("batch", "copies"), [(8, 2), (7, 2), (9, 4)])
def test_copies_share_a_label(batch, copies):
    random = torch.Generator().manual_seed(0)
    labels = OneHot(copies).sample(batch, 1000, random).tolist()
    assert len(labels) == batch
    groups = [labels[start : start + copies] for start in range(0, batch, copies)]
    assert all(len(set(group)) == 1 for group in groups)
    assert len({group[0] for group in groups}) == len(groups)


def test_hard_targets_lie_on_the_most_similar_classes():
    random = torch.Generator().manual_seed(0)
    weight = torch.randn(6, 9, generator=random)
    targets = SimilarClasses(hard=0.5, group=3).fitted(weight).sample(400, 6, random)
    torch.testing.assert_close(targets.sum(1), torch.ones(400))
    hard = targets.amax(1) < 1
    assert 150 < hard.sum() < 250
    likeness = weight @ weight.T
    groups = []
    for c in range(6):
        others = sorted((d for d in range(6) if d != c), key=lambda d: -likeness[c, d])
        groups.append({c, *others[:2]})
    for row in targets[hard]:
        assert set(row.nonzero()[:, 0].tolist()) in groups
    # Uniform over the simplex: each member of a group of three has a third on the mean.
    largest = targets[hard].amax(1).mean().item()
    assert largest == pytest.approx((1 + 1 / 2 + 1 / 3) / 3, abs=0.03)


def test_a_group_is_never_larger_than_all_classes():
    random = torch.Generator().manual_seed(0)
    fitted = SimilarClasses(hard=1.0, group=5).fitted(torch.randn(2, 4))
    assert fitted.sample(8, 2, random).shape == (8, 2)
