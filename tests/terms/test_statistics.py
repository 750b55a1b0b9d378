from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from dreamquant.networks.norm_inputs import Statistics
from dreamquant.terms.statistics import BatchNormDeviations, BatchNormStatistics


def equation(layers):
    """1/L sum_l [ mean_c (mean gap)^2 + mean_c (variance gap)^2 ], in plain loops."""
    total = 0.0
    for mean, var, stored_mean, stored_var in layers:
        channels = len(mean)
        for c in range(channels):
            total += (mean[c] - stored_mean[c]) ** 2 / channels
            total += (var[c] - stored_var[c]) ** 2 / channels
    return total / len(layers)


def layers_of(widths, seed):
    random = np.random.default_rng(seed)
    return [
        (random.normal(size=n), random.random(n), random.normal(size=n), random.random(n))
        for n in widths
    ]


def concatenated(layers):
    columns = (torch.from_numpy(np.concatenate(column)) for column in zip(*layers, strict=True))
    return Statistics(*columns, sizes=tuple(len(layer[0]) for layer in layers))


@pytest.mark.parametrize("widths", [(1,), (3, 5), (8, 8, 2, 16)])
def test_value_is_the_equation(widths, step_for):
    layers = layers_of(widths, seed=len(widths))
    term = BatchNormStatistics()
    loss = term(step_for(term, teacher={"statistics": concatenated(layers)}))
    assert loss.item() == pytest.approx(equation(layers), rel=1e-12)


def test_layers_weigh_the_same_however_wide_they_are(step_for):
    layers = layers_of((2, 64), seed=0)
    narrow, wide = (layer[1:] for layer in layers)
    term = BatchNormStatistics()

    def after(shifted):
        return term(step_for(term, teacher={"statistics": concatenated(shifted)})).item()

    base = [(narrow[1] * 0, narrow[0], narrow[1] * 0, narrow[0])]
    base.append((wide[1] * 0, wide[0], wide[1] * 0, wide[0]))
    assert after(base) == pytest.approx(equation(base), abs=1e-15)
    moved = [tuple(base[i][0] + 1 if j == 0 else base[i][j] for j in range(4)) for i in (0, 1)]
    assert after([moved[0], base[1]]) - after(base) == pytest.approx(0.5)
    assert after([base[0], moved[1]]) - after(base) == pytest.approx(0.5)


def test_nothing_is_lost_where_the_statistics_agree(step_for):
    mean, var, _, _ = layers_of((7,), seed=1)[0]
    term = BatchNormStatistics()
    assert term(step_for(term, teacher={"statistics": concatenated([(mean, var, mean, var)])})) == 0


def test_gradient_with_respect_to_the_statistics(step_for):
    term = BatchNormStatistics()
    given = concatenated(layers_of((3, 2), seed=2))

    def loss(mean, var):
        return term(step_for(term, teacher={"statistics": replace(given, mean=mean, var=var)}))

    assert torch.autograd.gradcheck(loss, (given.mean.requires_grad_(), given.var.requires_grad_()))


@pytest.mark.parametrize("widths", [(1,), (3, 5), (8, 8, 2, 16)])
def test_deviations_are_the_equation_and_each_layer_counts_whole(widths, step_for):
    layers = layers_of(widths, seed=len(widths))
    wanted = 0.0
    for mean, var, stored_mean, stored_var in layers:
        roots = np.sqrt(var + 1e-6) - np.sqrt(stored_var + 1e-6)
        wanted += ((mean - stored_mean) ** 2).mean() + (roots**2).mean()
    term = BatchNormDeviations()
    loss = term(step_for(term, teacher={"statistics": concatenated(layers)}))
    assert loss.item() == pytest.approx(wanted, rel=1e-12)
