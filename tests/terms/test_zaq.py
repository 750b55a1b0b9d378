"""ZAQ's terms, against plain loops."""

from __future__ import annotations

import math

import pytest
import torch

from dreamquant.networks.stage_maps import StageMaps
from dreamquant.terms.feature_relations import FeatureRelations
from dreamquant.terms.outputs import Activity, OutputDistance
from given_steps import given_step


def softmax(row):
    most = max(row)
    weights = [math.exp(value - most) for value in row]
    return [weight / sum(weights) for weight in weights]


def related(image, weight):
    """What positions and channels of one map (F, h, w) add, as two lists of rows of channels."""
    flat = image.flatten(1)
    rows = (flat / flat.norm(dim=0)).tolist()
    channels, positions = range(len(rows)), range(len(rows[0]))
    between = [
        softmax([sum(rows[c][i] * rows[c][j] for c in channels) for j in positions])
        for i in positions
    ]
    apart = [
        softmax([-sum(rows[c][i] * rows[d][i] for i in positions) for d in channels])
        for c in channels
    ]
    spatial = [
        [
            rows[c][i] + weight * sum(rows[c][j] * between[i][j] for j in positions)
            for i in positions
        ]
        for c in channels
    ]
    wise = [
        [rows[c][i] + weight * sum(rows[d][i] * apart[c][d] for d in channels) for i in positions]
        for c in channels
    ]
    return spatial, wise


def test_relations_are_the_equation() -> None:
    term = FeatureRelations(attended=0.1, side=4)
    random = torch.Generator().manual_seed(0)
    p, q = torch.randn(2, 2, 3, 4, 2, generator=random).double()
    step = given_step(
        term, teacher={"taps": {StageMaps(): (p,)}}, student={"taps": {StageMaps(): (q,)}}
    )
    wanted = 0.0
    for image in range(2):
        for of_p, of_q in zip(related(p[image], 0.1), related(q[image], 0.1), strict=True):
            gap = torch.tensor(of_q).double() - torch.tensor(of_p).double()
            wanted += gap.abs().mean().item() / 2
    assert term(step).item() == pytest.approx(wanted, rel=1e-6)
    step.student = step.teacher
    assert term(step).item() == 0


def test_large_maps_are_averaged_first() -> None:
    maps = torch.randn(2, 3, 8, 6).double()
    small = torch.nn.functional.adaptive_avg_pool2d(maps, (4, 4))
    other = torch.randn(2, 3, 4, 4).double()
    term = FeatureRelations(side=4)
    values = [
        term(
            given_step(
                term,
                teacher={"taps": {StageMaps(): (p,)}},
                student={"taps": {StageMaps(): (other,)}},
            )
        )
        for p in (maps, small)
    ]
    torch.testing.assert_close(*values)


def test_output_distance_is_the_mean_over_outputs() -> None:
    p, q = torch.randn(2, 4, 5).double()
    term = OutputDistance()
    wanted = sum(
        abs(a - b) for a, b in zip(p.flatten().tolist(), q.flatten().tolist(), strict=True)
    )
    assert term(given_step(term, teacher=p, student=q)).item() == pytest.approx(wanted / 20)


def test_activity_is_that_of_the_last_map() -> None:
    first, last = torch.randn(2, 3, 8, 8), torch.randn(2, 5, 4, 4)
    term = Activity()
    step = given_step(term, teacher={"taps": {StageMaps(): (first, last)}})
    assert term(step).item() == pytest.approx(last.abs().sum().item() / last.numel(), rel=1e-6)
