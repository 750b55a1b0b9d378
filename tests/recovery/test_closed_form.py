"""Least squares as a part of a method."""

import pytest
import torch

from dreamquant.errors import MethodError
from dreamquant.recovery.calibrate import Calibrate
from dreamquant.recovery.closed_form import RoundByLeastSquares

FEW = {"count": 48, "batch": 16}


def mean_error(bench, pool):
    with torch.no_grad():
        return (bench.student(pool) - bench.prepared(pool)).square().mean().item()


@pytest.mark.parametrize("placement", ["relu-output", "layer-input"])
@pytest.mark.parametrize("ranges", ["ema", "learned"])
def test_it_comes_closer_to_the_teacher_than_nearest_rounding(
    make_network, make_bench, given_images, pool, do, placement, ranges
):
    gains = []
    for seed in range(4):
        bench = make_bench(make_network(seed), placement=placement, ranges=ranges)
        images = given_images(bench, pool)
        do(Calibrate(**FEW), bench, images)
        before = mean_error(bench, pool)
        do(RoundByLeastSquares(**FEW, damp=0.02), bench, images)
        gains.append(before / mean_error(bench, pool))
    assert torch.tensor(gains).log().mean() > torch.tensor(1.5).log()


def test_weights_lie_on_their_grid_and_stay_there(make_network, make_bench, given_images, pool, do):
    bench = make_bench(make_network())
    do(RoundByLeastSquares(**FEW), bench, given_images(bench, pool))
    with torch.no_grad():
        before = bench.student(pool)
        bench.student.fix()
        assert torch.allclose(bench.student(pool), before, atol=1e-5)
    for latent, quantizer in bench.student.quantized_weights().values():
        assert torch.allclose(quantizer(latent), latent, atol=1e-6)


@pytest.mark.parametrize("stopped_after", [1, 4, 7])
def test_a_run_that_was_stopped_goes_on_to_the_same_student(
    make_network, make_bench, given_images, pool, stopped_after
):
    whole, halves = make_bench(make_network()), make_bench(make_network())
    part = RoundByLeastSquares(**FEW)
    (phase,) = part.phases(whole, given_images(whole, pool))
    states = []
    while not phase.over:
        phase.step()
        phase.done += 1
        states.append({k: v.clone() for k, v in whole.student.state_dict().items()})
    halves.student.load_state_dict(states[stopped_after - 1])
    (rest,) = part.phases(halves, given_images(halves, pool))
    rest.done = stopped_after
    while not rest.over:
        rest.step()
        rest.done += 1
    for name, tensor in whole.student.state_dict().items():
        assert torch.equal(tensor, halves.student.state_dict()[name]), name


def test_without_images_it_is_refused(make_network, make_bench):
    bench = make_bench(make_network())
    (phase,) = RoundByLeastSquares().phases(bench, None)
    with pytest.raises(MethodError, match="RoundByLeastSquares needs images"):
        phase.step()
