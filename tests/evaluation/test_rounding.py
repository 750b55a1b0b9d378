"""Statistics of rounding, compared with sums computed directly."""

from __future__ import annotations

import json
import math

import pytest
import torch

from dreamquant.evaluation.rounding import Tally, decibels
from dreamquant.quantization.affine import Grid, fake_quantize

GRID = Grid(0, 7)
SCALE, ZERO_POINT = torch.tensor(0.5), torch.tensor(2, dtype=torch.int32)


def tally_of(*batches):
    tally = Tally(GRID)
    for x in batches:
        rounded = fake_quantize(x, SCALE, ZERO_POINT, GRID, clipped_gradient=False)
        tally.add(x, rounded, SCALE, ZERO_POINT)
    return tally


def test_signal_noise_and_clipping_are_those_of_all_batches():
    x = torch.randn(4000, generator=torch.Generator().manual_seed(0)) * 1.5
    tally = tally_of(*x.split(1500))
    codes = (x / 0.5 + 2).round()
    noise = (codes.clamp(0, 7) - 2) * 0.5 - x
    expected = 10 * math.log10(x.double().square().sum() / noise.double().square().sum())
    assert tally.sqnr == pytest.approx(expected, rel=1e-6)
    found = tally.as_json()
    assert found["below"] == pytest.approx((codes < 0).double().mean().item())
    assert found["above"] == pytest.approx((codes > 7).double().mean().item())
    assert (found["low"], found["high"]) == (x.min().item(), x.max().item())
    assert found["values"] == 4000


def test_the_histogram_holds_what_is_neither_zero_nor_clipped():
    x = torch.tensor([0.0, 0.0, -0.9, 0.1, 2.4, 99.0, -99.0])
    found = tally_of(x).as_json()
    assert found["zeros"] == pytest.approx(2 / 7)
    assert len(found["histogram"]) == 128
    # In steps: -0.9 is 0.2, 0.1 is 2.2, 2.4 is 6.8; sixteen bins to a step from -0.5 on.
    assert [i for i, count in enumerate(found["histogram"]) if count] == [11, 43, 116]


def test_eight_bits_have_a_bin_a_code():
    assert len(Tally(Grid(-128, 127)).as_json()["histogram"]) == 256


def test_what_is_no_number_is_left_out_of_the_record():
    found = tally_of(torch.tensor([math.nan, 1.0]), torch.tensor([math.inf])).as_json()
    assert found["sqnr"] is None
    json.dumps(found, allow_nan=False)


@pytest.mark.parametrize(("signal", "noise"), [(0, 1), (1, 0), (math.nan, 1), (1, math.inf)])
def test_decibels_of_nothing_are_none(signal, noise):
    assert decibels(signal, noise) is None
    assert decibels(100, 1) == pytest.approx(20)
