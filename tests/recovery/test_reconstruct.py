"""Block reconstruction."""

import pytest
import torch

from dreamquant.recovery.calibrate import Calibrate
from dreamquant.recovery.closed_form import RoundByLeastSquares
from dreamquant.recovery.reconstruct import Reconstruct
from dreamquant.recovery.soft import SoftWeight

FEW = {"count": 48, "batch": 16}


def mean_error(bench, pool):
    with torch.no_grad():
        return (bench.student(pool) - bench.prepared(pool)).square().mean().item()


def soft_weight(bench, name="block.conv1"):
    weight = bench.student.quantized_weights()[name]
    return SoftWeight(weight, bench.prepared.get_submodule(name).weight)


def test_after_nearest_rounding_soft_weights_start_at_the_teachers(make_network, make_bench):
    soft = soft_weight(make_bench(make_network(), "w4a4"))
    reachable = torch.clamp(soft.weight.latent, soft.low * soft.scale, soft.high * soft.scale)
    # Those halfway between two levels start a tenth of a step away, and are free to move.
    assert ((soft.soft() - reachable) / soft.scale).abs().max() < 0.11


def test_decided_weights_keep_the_codes_that_they_started_from(
    make_network, make_bench, given_images, pool, do
):
    bench = make_bench(make_network(), "w3a3")
    do(RoundByLeastSquares(**FEW), bench, given_images(bench, pool))
    before = bench.student.quantized_weights()["block.conv1"].latent.clone()
    soft_weight(bench).settle()
    assert torch.allclose(
        bench.student.quantized_weights()["block.conv1"].latent, before, atol=1e-6
    )


def test_the_penalty_is_zero_when_every_bit_is_decided(make_network, make_bench):
    soft = soft_weight(make_bench(make_network()))
    with torch.no_grad():
        soft.bits.copy_(torch.where(soft.bits > 0, 9.0, -9.0))
    assert soft.penalty(2.0) == 0


def test_learned_steps_are_where_soft_weights_start(make_network, make_bench):
    soft = soft_weight(make_bench(make_network(), ranges="learned"))
    # An optimizer takes no tensor that is computed from another one.
    assert soft.bits.is_leaf
    assert soft.growth.is_leaf
    soft.settle()
    latent = soft.weight.latent
    codes = latent / soft.scale
    torch.testing.assert_close(codes, codes.round(), atol=1e-4, rtol=0)


@pytest.mark.parametrize("placement", ["relu-output", "layer-input"])
def test_it_comes_closer_to_the_teacher(
    make_network, make_bench, given_images, pool, do, placement
):
    gains = []
    for seed in range(2):
        bench = make_bench(make_network(seed), placement=placement)
        images = given_images(bench, pool)
        do(Calibrate(**FEW), bench, images)
        before = mean_error(bench, pool)
        do(Reconstruct(**FEW, steps=60), bench, images)
        gains.append(before / mean_error(bench, pool))
    assert torch.tensor(gains).log().mean() > torch.tensor(1.2).log()


def test_nothing_is_left_in_the_student_but_weights_on_their_grid(
    make_network, make_bench, given_images, pool, do
):
    bench = make_bench(make_network())
    names = set(bench.student.state_dict())
    do(Reconstruct(**FEW, steps=8), bench, given_images(bench, pool))
    assert set(bench.student.state_dict()) == names
    assert not any(m._forward_hooks for m in bench.student.modules())
    for latent, quantizer in bench.student.quantized_weights().values():
        if not quantizer.follows:
            assert torch.allclose(quantizer(latent), latent, atol=1e-6)


def test_a_unit_that_does_not_gain_is_left_as_it_was(
    make_network, make_bench, given_images, pool, do
):
    bench = make_bench(make_network())
    images = given_images(bench, pool)
    do(RoundByLeastSquares(**FEW), bench, images)
    before = {name: tensor.clone() for name, tensor in bench.student.state_dict().items()}
    harmful = Reconstruct(**FEW, steps=3, lr_bits=100.0, lr_scale=5.0, lr_bias=5.0)
    do(harmful, bench, images)
    assert all(torch.equal(t, before[name]) for name, t in bench.student.state_dict().items())


@pytest.mark.parametrize("stopped_after", [3, 14])
def test_a_run_that_was_stopped_goes_on_to_the_same_student(
    make_network, make_bench, given_images, pool, stopped_after
):
    part = Reconstruct(**FEW, steps=10)

    def run(bench, stop=None, start=None):
        steps = 0
        for phase in part.phases(bench, given_images(bench, pool)):
            if start is not None and steps + phase.total <= start[0]:
                steps += phase.total
                continue
            if start is not None and steps < start[0]:
                phase.load_state_dict(start[2])
                phase.done, steps = start[0] - steps, start[0]
            while not phase.over:
                phase.step()
                phase.done += 1
                steps += 1
                if steps == stop:
                    student = bench.student.state_dict()
                    return steps, {k: v.clone() for k, v in student.items()}, phase.state_dict()
        return None

    whole, resumed = make_bench(make_network()), make_bench(make_network())
    state = run(make_bench(make_network()), stop=stopped_after)
    run(whole)
    resumed.student.load_state_dict(state[1])
    run(resumed, start=state)
    for name, tensor in whole.student.state_dict().items():
        assert torch.equal(tensor, resumed.student.state_dict()[name]), name
