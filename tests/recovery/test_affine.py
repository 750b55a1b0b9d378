"""Channels rescaled in closed form."""

import numpy as np
import pytest
import torch

from dreamquant.recovery.affine import RescaleChannels, fitted
from dreamquant.recovery.calibrate import Calibrate
from dreamquant.recovery.nearest import RoundToNearest

FEW = {"count": 48, "batch": 16}


def test_the_line_is_that_of_least_squares():
    random = np.random.default_rng(0)
    given = random.normal(size=(3, 40))
    wanted = 1.3 * given + 0.2 + 0.3 * random.normal(size=(3, 40))
    line = fitted(torch.from_numpy(given), torch.from_numpy(wanted), ridge=0.0)
    for channel in range(3):
        slope, offset = np.polyfit(given[channel], wanted[channel], 1)
        assert line.slope[channel].item() == pytest.approx(slope)
        assert line.offset[channel].item() == pytest.approx(offset)


def test_a_ridge_draws_slopes_to_1_and_a_dead_channel_gets_an_offset_alone():
    given = torch.tensor([[0.0, 1.0, 2.0, 3.0], [5.0, 5.0, 5.0, 5.0]]).double()
    line = fitted(given, given * 1.5, ridge=1.0)
    assert line.slope.tolist() == [1.25, 1.0]
    assert line.offset[1] == 2.5


@pytest.mark.parametrize("placement", ["relu-output", "layer-input"])
def test_outputs_come_closer_and_codes_stay(
    make_network, make_bench, given_images, pool, do, placement
):
    gains = []
    for seed in range(3):
        bench = make_bench(make_network(seed), placement=placement)
        images = given_images(bench, pool)
        do(RoundToNearest(), bench, None)
        do(Calibrate(**FEW), bench, images)
        weights = bench.student.quantized_weights()
        codes = {name: q.codes(latent) for name, (latent, q) in weights.items()}
        with torch.no_grad():
            before = (bench.student(pool) - bench.prepared(pool)).square().mean()
            do(RescaleChannels(**FEW), bench, images)
            after = (bench.student(pool) - bench.prepared(pool)).square().mean()
        gains.append(before / after)
        for name, (latent, quantizer) in bench.student.quantized_weights().items():
            assert quantizer.codes(latent).equal(codes[name])
            assert torch.allclose(quantizer(latent), latent, atol=1e-6)
    assert torch.stack(gains).log().mean() > torch.tensor(1.2).log()
