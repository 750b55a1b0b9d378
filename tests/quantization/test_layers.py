import copy

import pytest
import torch
from torch import nn

from dreamquant.quantization.affine import affine_parameters, unsigned_grid
from dreamquant.quantization.quantizers import ActivationQuantizer, WeightQuantizer
from dreamquant.quantization.student import Student


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def distinct(x):
    return len(x.unique())


def activation(bits=4, **changes):
    options = {"learned": False, "clipped_gradient": False, "momentum": 0.9} | changes
    return ActivationQuantizer(bits, **options)


# --------------------------------------------------------------------------------- weights


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize(("shape", "axis"), [((5, 3, 3, 3), 0), ((5, 40), 0), ((3, 5, 4, 4), 1)])
def test_weights_lie_on_a_grid_per_channel(shape, axis, bits):
    weight, quantizer = random(*shape), WeightQuantizer(bits, 5, axis)
    out, codes = quantizer(weight), quantizer.codes(weight)
    scale = quantizer.parameters_of(weight)[0].flatten()
    for channel in range(5):
        assert distinct(out.select(axis, channel)) <= 2**bits
        error = (out - weight).select(axis, channel).abs().max()
        assert error <= 0.5001 * scale[channel]
    assert quantizer.grid.qmin <= codes.min() <= codes.max() <= quantizer.grid.qmax


def test_weights_of_eight_bits_are_symmetric():
    weight = random(5, 3, 3, 3) + 1
    quantizer = WeightQuantizer(8, 5, 0)
    scale, zero_point = quantizer.parameters_of(weight)
    assert not zero_point.any()
    assert torch.allclose(scale.flatten(), weight.flatten(1).abs().amax(1) / 127)
    codes = quantizer.codes(weight).flatten(1)
    assert codes.abs().amax(1).tolist() == [127] * 5
    assert torch.equal(quantizer(weight), codes.view_as(weight) * scale)


@pytest.mark.parametrize("learned", [False, True])
@pytest.mark.parametrize(("bits", "reach", "end"), [(8, 127, 127), (8, 64, 64), (7, 64, 63)])
def test_weights_that_are_symmetric_stay_within_reach(bits, reach, end, learned):
    weight = random(5, 3, 3, 3) + 1
    quantizer = WeightQuantizer(bits, 5, 0, learned=learned, reach=reach)
    quantizer.fit(weight)
    scale, zero_point = quantizer.parameters_of(weight)
    assert not zero_point.any()
    codes = quantizer.codes(weight)
    assert codes.flatten(1).abs().amax(1).tolist() == [end] * 5
    assert torch.equal(quantizer(weight), codes * scale)


@pytest.mark.parametrize("learned", [False, True])
def test_a_symmetric_channel_of_zeros_may_become_anything(learned):
    weight = random(2, 9)
    weight[1] = 0
    quantizer = WeightQuantizer(8, 2, 0, learned=learned)
    quantizer.fit(weight)
    assert quantizer.zero_point.tolist() == [0, 0]
    assert quantizer.parameters_of(weight)[1].flatten().tolist() == [0, 0]
    assert not quantizer(weight)[1].any()


@pytest.mark.parametrize("bits", range(2, 9))
def test_fixed_weights_stay_where_they_are(bits):
    weight, quantizer = random(5, 3, 3, 3), WeightQuantizer(bits, 5, 0)
    before, codes = quantizer(weight), quantizer.codes(weight)
    quantizer.fix(weight)
    assert torch.equal(quantizer(weight), before)
    assert torch.equal(quantizer(before), before)
    assert torch.equal(quantizer.codes(before), codes)
    # Even where the weights no longer reach the ends of the range.
    quantizer(before / 2)
    assert torch.equal(quantizer(before), before)


def test_ranges_follow_the_weight_until_fixed():
    weight, quantizer = random(2, 9), WeightQuantizer(3, 2, 0)
    scale, _ = quantizer.parameters_of(weight)
    wider, _ = quantizer.parameters_of(2 * weight)
    assert torch.equal(wider, 2 * scale)
    quantizer.fix(weight)
    assert torch.equal(quantizer.parameters_of(2 * weight)[0], scale)
    assert torch.equal(quantizer.scale, scale.flatten())


def test_gradient_reaches_every_latent_weight():
    weight = random(4, 9).requires_grad_()
    WeightQuantizer(2, 4, 0)(weight).sum().backward()
    assert torch.equal(weight.grad, torch.ones(4, 9))


@pytest.mark.parametrize("bits", [2, 3, 8])
@pytest.mark.parametrize(("shape", "axis"), [((5, 40), 0), ((3, 5, 4, 4), 1)])
def test_learned_ranges_start_where_the_squared_error_is_least(shape, axis, bits):
    weight = random(*shape)
    following = WeightQuantizer(bits, 5, axis)
    learned = WeightQuantizer(bits, 5, axis, learned=True)
    learned.fit(weight)
    dims = [dim for dim in range(len(shape)) if dim != axis]

    def error(scale):
        tried = copy.deepcopy(learned)
        tried.place(scale, learned.zero_point)
        return (tried(weight) - weight).square().sum(dims)

    assert (error(learned.scale) <= (following(weight) - weight).square().sum(dims)).all()
    if bits < 4:
        # It clips what lies far out, and neither finer nor coarser steps would be better.
        assert (learned.scale < following.parameters_of(weight)[0].flatten()).any()
    for factor in (0.8, 1.25):
        assert (error(learned.scale) <= error(factor * learned.scale)).all()


def test_learned_ranges_of_weights_take_a_gradient_and_no_longer_follow():
    weight = random(2, 9).requires_grad_()
    quantizer = WeightQuantizer(3, 2, 0, learned=True)
    quantizer.fit(weight)
    scale = quantizer.scale.clone()
    quantizer(3 * weight).square().sum().backward()
    assert torch.equal(quantizer.scale, scale)
    assert quantizer.growth.grad.all()
    assert 0 < weight.grad.count_nonzero() < 18  # what is clamped passes none


@pytest.mark.parametrize("learned", [False, True])
def test_fixing_keeps_what_training_made_of_the_ranges(learned):
    weight = random(4, 9)
    quantizer = WeightQuantizer(3, 4, 0, learned=learned)
    if learned:
        quantizer.fit(weight)
        with torch.no_grad():
            quantizer.growth.uniform_(-0.2, 0.2)
    out = quantizer(weight)
    quantizer.fix(weight)
    assert torch.equal(quantizer(out), out)
    assert torch.equal(quantizer.start, quantizer.scale)


# ----------------------------------------------------------------------------- activations


@pytest.mark.parametrize("bits", range(2, 9))
def test_observing_covers_the_range_then_it_is_frozen(bits):
    quantizer, x = activation(bits), random(100)
    quantizer.observing = True
    out = quantizer(x)
    scale, zero_point = affine_parameters(x.min(), x.max(), unsigned_grid(bits))
    assert torch.equal(quantizer.scale, scale)
    assert torch.equal(quantizer.zero_point, zero_point)
    assert distinct(out) <= 2**bits
    assert (out - x).abs().max() <= 0.5001 * scale
    quantizer.observing = False
    beyond = quantizer(10 * x)
    assert torch.equal(quantizer.scale, scale)
    assert (beyond.min(), beyond.max()) == (out.min(), out.max())


def test_positive_inputs_use_all_codes():
    quantizer, x = activation(4), random(1000).relu()
    quantizer.observing = True
    assert quantizer(x).min() == 0
    assert quantizer.zero_point == 0


@pytest.mark.parametrize("learned", [False, True])
def test_only_learned_scales_take_a_gradient(learned):
    quantizer, x = activation(4, learned=learned, clipped_gradient=True), random(100)
    quantizer.observing = True
    quantizer(x)
    quantizer.observing = False
    leaf = (3 * x).requires_grad_()
    quantizer(leaf).sum().backward()
    assert 0 < leaf.grad.count_nonzero() < 100
    assert quantizer.scale.requires_grad is learned
    if learned:
        assert quantizer.growth.grad.abs() > 0


@pytest.mark.parametrize("bits", [2, 4])
def test_gradient_of_the_growth_does_not_depend_on_how_large_values_are(bits):
    x, gradients = random(200), []
    for size in (1.0, 1024.0):
        quantizer = activation(bits, learned=True, clipped_gradient=True)
        quantizer.place(torch.tensor(0.25 * size), torch.tensor(1))
        out = quantizer(size * x)
        (out / size).sum().backward()
        gradients.append(quantizer.growth.grad.item())
    inside = torch.round(x / 0.25 + 1) == quantizer.codes(1024 * x)
    expected = torch.where(inside, out.detach() / size - x, out.detach() / size).sum().item()
    assert gradients == pytest.approx([expected, expected], rel=1e-4)


def test_a_scale_stays_positive_however_far_it_is_trained():
    quantizer = activation(4, learned=True, clipped_gradient=True)
    with torch.no_grad():
        quantizer.growth.fill_(-20)
    assert 0 < quantizer.scale < 1e-8


def test_observing_moves_a_learned_scale_without_gradient():
    quantizer = activation(4, learned=True, clipped_gradient=True)
    quantizer.observing = True
    quantizer(random(100).requires_grad_()).sum().backward()
    assert not quantizer.start.requires_grad


# --------------------------------------------------------------------------------- student


def test_a_student_without_quantizers_is_its_network():
    network = nn.Linear(3, 2)
    x = random(4, 3)
    assert torch.equal(Student(network)(x), network(x))


def test_ranges_that_are_held_are_held_by_who_loads_the_state():
    weight = torch.tensor([[-1.0, 0.5], [0.2, 3.0]])
    held, fresh = (WeightQuantizer(4, 2, 0) for _ in range(2))
    held.hold(torch.tensor([0.3, 0.4]), torch.tensor([0, 1]))
    fresh.load_state_dict(held.state_dict())
    assert torch.equal(fresh(weight), held(weight))
    assert not fresh.follows
