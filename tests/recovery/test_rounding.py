"""Rounding by least squares, against brute force on tiny layers."""

from itertools import product

import pytest
import torch
from torch import nn

from dreamquant.quantization.affine import Grid, signed_grid
from dreamquant.recovery.gram import moments_of
from dreamquant.recovery.levels import Levels, search_levels
from dreamquant.recovery.rounding import (
    DAMPS,
    damped,
    descend,
    gptq,
    least_squares_target,
    output_error,
    refit_scale,
    round_rows,
    validated_damp,
)

FINE = Grid(-(2**40), 2**40)


def gram_of(groups, inputs, seed=0):
    """Second moments of correlated inputs, float64."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(groups, inputs, inputs, generator=generator, dtype=torch.float64)
    x = torch.randn(groups, 3 * inputs, inputs, generator=generator, dtype=torch.float64) @ mixing
    return damped(x.transpose(1, 2) @ x / x.shape[1], 0.01)


def rows_of(groups, outputs, inputs, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(groups, outputs, inputs, generator=generator, dtype=torch.float64)


def test_the_target_is_the_least_squares_solution():
    torch.manual_seed(0)
    layer = nn.Linear(6, 3, bias=False)
    x, wanted = torch.randn(200, 6), torch.randn(200, 3)
    moments = moments_of(layer, [(x, wanted)])
    rows = layer.weight.detach().unsqueeze(0)
    target = least_squares_target(moments, rows, damped(moments.gram, 0))
    expected = torch.linalg.lstsq(x.double(), wanted.double()).solution.T
    assert torch.allclose(target[0], expected, atol=1e-4)


def test_with_a_free_bias_the_target_and_its_bias_are_an_affine_fit():
    torch.manual_seed(0)
    layer = nn.Linear(4, 2)
    x, wanted = torch.randn(300, 4) + 2, torch.randn(300, 2) - 3
    moments = moments_of(layer, [(x, wanted)])
    centred = moments.centred()
    rows = layer.weight.detach().unsqueeze(0)
    target = least_squares_target(centred, rows, damped(centred.gram, 0))
    with_one = torch.cat([x, torch.ones(300, 1)], 1).double()
    expected = torch.linalg.lstsq(with_one, wanted.double()).solution.T
    assert torch.allclose(target[0], expected[:, :4], atol=1e-4)
    assert torch.allclose(moments.bias(target)[0], expected[:, 4], atol=1e-4)


def test_strong_damping_keeps_the_weights():
    torch.manual_seed(0)
    layer = nn.Linear(6, 3)
    moments = moments_of(layer, [(torch.randn(20, 6), torch.randn(20, 3))])
    rows = layer.weight.detach().unsqueeze(0)
    target = least_squares_target(moments, rows, damped(moments.gram, 1e8))
    assert torch.allclose(target.float(), rows, atol=1e-5)


def test_validation_damps_where_images_say_little():
    torch.manual_seed(0)
    layer = nn.Linear(20, 8)
    rows = layer.weight.detach().unsqueeze(0)
    better = rows[0] + 0.5 * torch.randn(8, 20)  # what the outputs really follow

    def chosen(count, noise):
        halves = []
        for _ in range(2):
            x = torch.randn(count, 20)
            wanted = x @ better.T + noise * torch.randn(count, 8)
            halves.append(moments_of(layer, [(x, wanted)]))
        return validated_damp((halves[0], halves[1]), rows)

    assert chosen(2000, noise=0.1) == DAMPS[0]
    assert chosen(30, noise=8.0) == DAMPS[-1]


def test_gptq_is_least_squares_when_nothing_is_rounded():
    target = rows_of(2, 3, 70)
    levels = Levels(torch.full((2, 3, 1), 1e-9).double(), torch.zeros(2, 3, 1).double(), FINE)
    assert torch.allclose(gptq(target, gram_of(2, 70), levels), target, atol=1e-7)


def test_gptq_of_one_column_at_a_time_by_hand():
    gram, target = gram_of(1, 5), rows_of(1, 1, 5)
    levels = search_levels(target, signed_grid(3), symmetric=False)
    order = gram[0].diagonal().argsort(descending=True)
    real, expected = target[0, 0].clone(), torch.zeros(5).double()
    for place, j in enumerate(order):
        expected[j] = levels.nearest(real[j].view(1, 1, 1)).item()
        later = order[place + 1 :]
        # The best real values of the others, given this one, minimise the same quadratic form.
        among = gram[0][later][:, later]
        fixed = expected - target[0, 0]
        real[later] = target[0, 0, later] - torch.linalg.solve(
            among, gram[0][later][:, order[: place + 1]] @ fixed[order[: place + 1]]
        )
    assert torch.allclose(gptq(target, gram, levels)[0, 0], expected)


def test_no_single_change_of_a_code_improves_what_descent_ends_in():
    gram, target = gram_of(1, 6), rows_of(1, 4, 6)
    levels = search_levels(target, signed_grid(2), symmetric=False)
    found = descend(levels.nearest(target), target, gram, levels, 50)
    best = output_error(found, target, gram)
    codes = torch.arange(levels.grid.qmin, levels.grid.qmax + 1)
    for j, code in product(range(6), codes):
        changed = found.clone()
        changed[..., j] = ((code - levels.zero_point) * levels.scale).squeeze(2)
        assert (output_error(changed, target, gram) >= best - 1e-9).all()


def test_descent_finds_the_optimum_of_brute_force_where_inputs_are_uncorrelated():
    gram = torch.diag_embed(torch.tensor([[4.0, 1.0, 0.5, 2.0]]).double())
    target = rows_of(1, 2, 4)
    levels = search_levels(target, signed_grid(2), symmetric=False)
    found = descend(torch.zeros_like(target), target, gram, levels, 1)
    every = torch.tensor(list(product(range(-2, 2), repeat=4))).double()
    for o in range(2):
        rows = (every - levels.zero_point[0, o]) * levels.scale[0, o]
        errors = output_error(rows.unsqueeze(0), target[:, o : o + 1], gram)[0]
        assert output_error(found, target, gram)[0, o] <= errors.min() + 1e-9


@pytest.mark.parametrize("shape", [(1, 5, 150), (12, 1, 9), (3, 4, 20)])
def test_no_sweep_and_no_refitted_scale_makes_a_row_worse(shape):
    groups, _, inputs = shape
    gram, target = gram_of(groups, inputs), rows_of(*shape)
    levels = search_levels(target, signed_grid(3), symmetric=False)
    rows = levels.nearest(target)
    error = output_error(rows, target, gram)
    for _ in range(4):
        steps = levels.steps(rows)
        levels = refit_scale(rows, target, gram, levels)
        rows = steps * levels.scale
        refitted = output_error(rows, target, gram)
        assert (refitted <= error + 1e-9).all()
        rows = descend(rows, target, gram, levels, 1)
        error = output_error(rows, target, gram)
        assert (error <= refitted + 1e-9).all()
    assert torch.allclose(levels.nearest(rows), rows)


def test_all_together_never_ends_above_rounding_to_nearest():
    gram, target = gram_of(2, 30), rows_of(2, 8, 30)
    levels = search_levels(target, signed_grid(3), symmetric=False)
    rows, _ = round_rows(target, gram, levels, 3)
    nearest = output_error(levels.nearest(target), target, gram)
    assert (output_error(rows, target, gram) <= nearest + 1e-9).all()
    assert output_error(rows, target, gram).sum() < 0.7 * nearest.sum()


def test_depthwise_rounding_equals_that_of_the_dense_masked_form():
    gram, target = gram_of(3, 4), rows_of(3, 1, 4)
    levels = search_levels(target, signed_grid(3), symmetric=False)
    dense = torch.block_diag(*gram).unsqueeze(0)
    mask = torch.block_diag(*torch.ones(3, 1, 4)).bool().unsqueeze(0)
    wide = torch.zeros(1, 3, 12).double()
    wide[mask] = target.flatten()
    # Masked weights are zero and stay there: zero is a level.
    same = Levels(levels.scale.view(1, 3, 1), levels.zero_point.view(1, 3, 1), levels.grid)
    apart = descend(levels.nearest(target), target, gram, levels, 3)
    together = descend(same.nearest(wide), wide, dense, same, 3)
    assert torch.allclose(together[mask], apart.flatten())
    assert not together[~mask].any()


def test_weights_of_dead_inputs_round_to_nearest():
    gram = gram_of(1, 6)
    gram[:, 2] = gram[:, :, 2] = 0
    gram, target = damped(gram, 0.05), rows_of(1, 5, 6)
    levels = search_levels(target, signed_grid(4), symmetric=False)
    rows = gptq(target, gram, levels)
    assert torch.equal(rows[..., 2], levels.nearest(target)[..., 2])


def test_a_layer_whose_inputs_are_all_dead_keeps_its_weights():
    torch.manual_seed(0)
    layer = nn.Conv2d(3, 3, 3, groups=3)
    x = torch.randn(4, 3, 6, 6)
    x[:, 1] = 0
    moments = moments_of(layer, [(x, layer(x).detach())]).centred()
    rows = layer.weight.detach().reshape(3, 1, 9)
    target = least_squares_target(moments, rows, damped(moments.gram, 0.1))
    assert torch.allclose(target.float(), rows, atol=1e-5)


def test_groups_may_share_their_scales():
    rows = rows_of(2, 3, 8)
    levels = search_levels(rows, signed_grid(3), symmetric=False, shared=True)
    together = search_levels(torch.cat([rows[:1], rows[1:]], 2), signed_grid(3), symmetric=False)
    assert torch.equal(levels.scale, together.scale)
    refitted = refit_scale(levels.nearest(rows), rows, gram_of(2, 8), levels)
    assert refitted.scale.shape == (1, 3, 1)


def test_symmetric_levels_have_no_zero_point():
    levels = search_levels(rows_of(1, 3, 8) + 1, Grid(-63, 63), symmetric=True)
    assert not levels.zero_point.any()
