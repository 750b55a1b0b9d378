"""Quantizers, compared with integer arithmetic in NumPy: float32 division, int64 codes."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from dreamquant.quantization.affine import (
    Grid,
    affine_parameters,
    dequantize,
    fake_quantize,
    quantize,
    signed_grid,
    unsigned_grid,
)

GRIDS = [make(bits) for bits in range(2, 9) for make in (signed_grid, unsigned_grid)]
TINY = np.finfo(np.float32).tiny
LARGEST = np.finfo(np.float32).max

# Rows are channels. Any float32, and numbers of one magnitude, which random floats rarely are.
ANY = st.floats(width=32, allow_nan=False, allow_infinity=False)
UNIT = st.floats(-1, 1, width=32)
MAGNITUDES = st.sampled_from([1e-44, 1e-38, 1e-30, 1e-3, 1.0, 1e4, 1e30, 1e38])
SHAPES = st.tuples(st.integers(1, 3), st.integers(1, 12))
TENSORS = st.one_of(
    hnp.arrays(np.float32, SHAPES, elements=ANY),
    st.builds(
        lambda x, size: (x * size).astype(np.float32),
        hnp.arrays(np.float32, SHAPES, elements=UNIT),
        MAGNITUDES,
    ),
)
SPECIAL = {
    "zeros": [0.0, -0.0, 0.0],
    "constant": [3.0, 3.0, 3.0],
    "negative constant": [-0.1, -0.1],
    "one": [1.0],
    "positive": [0.5, 2.0, 9.0],
    "negative": [-0.5, -2.0, -9.0],
    "huge": [-1e30, 3e29, 1e30],
    "half the largest": [-LARGEST / 2, 0.0, LARGEST / 2],
    "largest": [0.0, 1.0, LARGEST],
    "largest of both signs": [-LARGEST, 1.0, LARGEST],
    "tiny": [-1e-30, 2e-31, 1e-30],
    "smallest normal": [-TINY, 0.0, TINY],
    "denormal": [-1e-40, 1e-45, 3e-39],
    "wide": [-1e-30, 1.0, 1e30],
}


def per_channel(x):
    return torch.from_numpy(x.min(1, keepdims=True)), torch.from_numpy(x.max(1, keepdims=True))


def per_tensor(x):
    return torch.tensor(x.min()), torch.tensor(x.max())


def codes_by_hand(x, scale, zero_point, grid):
    with np.errstate(all="ignore"):  # overflows to infinity, which is clamped
        steps = np.rint(np.float32(x) / np.float32(scale))
    steps = np.clip(steps, -(2**40), 2**40).astype(np.int64)
    return np.clip(steps + zero_point.astype(np.int64), grid.qmin, grid.qmax)


def values_by_hand(codes, scale, zero_point):
    with np.errstate(over="ignore"):
        return (codes - zero_point.astype(np.int64)).astype(np.float32) * np.float32(scale)


def same_bits(a, b):
    return a.dtype == b.dtype and a.shape == b.shape and a.numpy().tobytes() == b.numpy().tobytes()


def assert_is_integer_arithmetic(x, grid, ranges):
    low, high = ranges(x)
    scale, zero_point = affine_parameters(low, high, grid)
    assert_parameters_cover(low, high, scale, zero_point, grid)
    s, z = scale.numpy(), zero_point.numpy()
    tensor = torch.from_numpy(x)

    codes = quantize(tensor, scale, zero_point, grid)
    assert codes.dtype == torch.int32
    expected = codes_by_hand(x, s, z, grid)
    np.testing.assert_array_equal(codes.numpy(), expected)

    values = dequantize(codes, scale, zero_point)
    assert same_bits(values, torch.from_numpy(values_by_hand(expected, s, z)))
    fake = fake_quantize(tensor, scale, zero_point, grid, clipped_gradient=False)
    assert same_bits(fake, values)
    zeros = torch.zeros_like(tensor)
    assert same_bits(dequantize(quantize(zeros, scale, zero_point, grid), scale, zero_point), zeros)

    # The ends of a range as wide as float32 round to infinity.
    finite = np.isfinite(values.numpy())
    exact = np.abs((expected - z.astype(np.int64)) * s.astype(np.float64))
    assert (finite | (exact > LARGEST)).all()
    error = np.abs(values.numpy().astype(np.float64) - x)[finite]
    assert (error <= (0.5001 * s.astype(np.float64) + np.zeros_like(exact))[finite]).all()
    if finite.all():
        assert torch.equal(quantize(values, scale, zero_point, grid), codes)
        again = fake_quantize(values, scale, zero_point, grid, clipped_gradient=False)
        assert same_bits(again, values)


def assert_parameters_cover(low, high, scale, zero_point, grid):
    assert (scale.dtype, zero_point.dtype) == (torch.float32, torch.int32)
    assert scale.shape == zero_point.shape == low.shape
    assert (scale >= TINY).all()
    assert scale.isfinite().all()
    assert ((grid.qmin <= zero_point) & (zero_point <= grid.qmax)).all()
    low = np.minimum(low.numpy().astype(np.float64), 0)
    high = np.maximum(high.numpy().astype(np.float64), 0)
    step = np.maximum((high - low) / (grid.qmax - grid.qmin), TINY)
    np.testing.assert_allclose(scale.numpy(), step, rtol=1e-6)
    assert (np.abs(zero_point.numpy() - (grid.qmin - low / step)) <= 0.5001).all()


@pytest.mark.parametrize(
    ("bits", "signed", "unsigned"),
    [(2, (-2, 1), (0, 3)), (4, (-8, 7), (0, 15)), (8, (-128, 127), (0, 255))],
)
def test_grids(bits, signed, unsigned):
    assert (signed_grid(bits), unsigned_grid(bits)) == (Grid(*signed), Grid(*unsigned))
    assert signed_grid(bits).levels == unsigned_grid(bits).levels == 2**bits - 1


@given(x=TENSORS, grid=st.sampled_from(GRIDS), ranges=st.sampled_from([per_tensor, per_channel]))
@settings(max_examples=300, deadline=None)
def test_equals_integer_arithmetic(x, grid, ranges):
    assert_is_integer_arithmetic(x, grid, ranges)


@pytest.mark.parametrize("grid", GRIDS, ids=str)
@pytest.mark.parametrize("x", SPECIAL.values(), ids=SPECIAL.keys())
def test_equals_integer_arithmetic_on_special_tensors(x, grid):
    x = np.array([x], np.float32)
    assert_is_integer_arithmetic(x, grid, per_tensor)
    assert_is_integer_arithmetic(np.concatenate([x, x / 7, -x]), grid, per_channel)


@given(x=TENSORS, grid=st.sampled_from(GRIDS), scale=st.floats(2**-60, 2**60, width=32))
@settings(max_examples=100, deadline=None)
def test_values_outside_the_range_are_clamped(x, grid, scale):
    for zero_point in (grid.qmin, 0, grid.qmax):
        s, z = torch.tensor(scale), torch.tensor(zero_point, dtype=torch.int32)
        codes = quantize(torch.from_numpy(x), s, z, grid)
        expected = codes_by_hand(x, s.numpy(), z.numpy(), grid)
        np.testing.assert_array_equal(codes.numpy(), expected)


@pytest.mark.parametrize(
    ("x", "code"),
    [(0.5, 0), (1.5, 2), (2.5, 2), (-0.5, 0), (-1.5, -2), (7.5, 7), (-8.5, -8), (-9.0, -8)],
)
def test_halves_round_to_even(x, code):
    found = quantize(
        torch.tensor(x), torch.tensor(1.0), torch.tensor(0, dtype=torch.int32), signed_grid(4)
    )
    assert found.item() == code


@pytest.mark.parametrize("infinite", [float("inf"), -float("inf")])
def test_infinity_is_clamped(infinite):
    grid = unsigned_grid(4)
    scale, zero_point = affine_parameters(torch.tensor(-1.0), torch.tensor(2.0), grid)
    found = quantize(torch.tensor(infinite), scale, zero_point, grid)
    assert found.item() == (grid.qmax if infinite > 0 else grid.qmin)


@pytest.mark.parametrize("learned", [False, True])
def test_nan_stays_visible(learned):
    x = torch.tensor([0.3, float("nan"), -0.7])
    scale, zero_point = affine_parameters(torch.tensor(-1.0), torch.tensor(1.0), signed_grid(4))
    scale.requires_grad_(learned)
    out = fake_quantize(x, scale, zero_point, signed_grid(4), clipped_gradient=learned)
    assert out.isnan().tolist() == [False, True, False]


def test_nan_in_the_range_stays_visible():
    low, high = torch.tensor([-1.0, float("nan")]), torch.tensor([1.0, float("nan")])
    scale, zero_point = affine_parameters(low, high, signed_grid(4))
    out = fake_quantize(
        torch.full((2,), 0.5), scale, zero_point, signed_grid(4), clipped_gradient=False
    )
    assert out.isnan().tolist() == [False, True]


def test_layout_is_kept_and_inputs_are_not_changed():
    x = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    lasting = x.to(memory_format=torch.channels_last)
    scale, zero_point = affine_parameters(x.amin(), x.amax(), unsigned_grid(3))
    before = [t.clone() for t in (lasting, scale, zero_point)]
    out = fake_quantize(lasting, scale, zero_point, unsigned_grid(3), clipped_gradient=False)
    quantize(lasting, scale, zero_point, unsigned_grid(3))
    assert out.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(
        out, fake_quantize(x, scale, zero_point, unsigned_grid(3), clipped_gradient=False)
    )
    assert all(map(torch.equal, (lasting, scale, zero_point), before))


# ------------------------------------------------------------------------------- gradients


def case(seed, grid, *, channels):
    """Values of which some are clamped, and what the loss multiplies the output by."""
    random = np.random.default_rng(seed)
    x = random.normal(0, 2, (4, 50)).astype(np.float32)
    low, high = per_channel(x / 2) if channels else per_tensor(x / 2)
    scale, zero_point = affine_parameters(low, high, grid)
    slope = torch.from_numpy(random.normal(size=x.shape).astype(np.float32))
    return torch.from_numpy(x), scale, zero_point, slope


def clamped_by_hand(x, scale, zero_point, grid):
    steps = np.rint(x.numpy() / scale.numpy()).astype(np.int64) + zero_point.numpy()
    return torch.from_numpy((steps < grid.qmin) | (steps > grid.qmax))


@pytest.mark.parametrize("channels", [False, True])
@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_gradient_to_x(grid, channels):
    x, scale, zero_point, slope = case(0, grid, channels=channels)
    clamped = clamped_by_hand(x, scale, zero_point, grid)
    assert 0 < clamped.sum() < clamped.numel()
    for learned in (False, True):
        for clipped, expected in ((False, slope), (True, slope.masked_fill(clamped, 0))):
            leaf = x.clone().requires_grad_()
            out = fake_quantize(
                leaf,
                scale.clone().requires_grad_(learned),
                zero_point,
                grid,
                clipped_gradient=clipped,
            )
            out.backward(slope)
            assert torch.equal(leaf.grad, expected)


@pytest.mark.parametrize("clipped", [False, True])
@pytest.mark.parametrize("x_learns", [False, True])
@pytest.mark.parametrize("channels", [False, True])
@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_gradient_to_a_learned_scale(grid, channels, x_learns, clipped):
    x, scale, zero_point, slope = case(1, grid, channels=channels)
    clamped = clamped_by_hand(x, scale, zero_point, grid)
    s, wide = scale.double(), x.double()
    codes = torch.from_numpy(codes_by_hand(x.numpy(), scale.numpy(), zero_point.numpy(), grid))
    values = (codes - zero_point) * s
    each = slope * torch.where(clamped, values / s, (values - wide) / s)
    expected = each.sum(1, keepdim=True) if channels else each.sum()

    leaf = scale.clone().requires_grad_()
    fake_quantize(
        x.clone().requires_grad_(x_learns),
        leaf,
        zero_point,
        grid,
        clipped_gradient=clipped,
    ).backward(slope)
    assert leaf.grad.shape == scale.shape
    tolerance = 1e-6 * each.abs().sum().item()
    np.testing.assert_allclose(leaf.grad.double(), expected, rtol=0, atol=tolerance)


@given(scale=st.floats(2**-60, 2**60, width=32), clipped=st.booleans())
@settings(max_examples=50, deadline=None)
def test_gradients_do_not_change_which_way_ties_go(scale, clipped):
    # Dividing by the scale and multiplying with its reciprocal part ways here.
    s, z, grid = torch.tensor(scale), torch.tensor(3, dtype=torch.int32), unsigned_grid(8)
    ties = (torch.arange(-8, 260) + 0.5) * s
    expected = values_by_hand(codes_by_hand(ties.numpy(), scale, z.numpy(), grid), scale, z.numpy())
    out = fake_quantize(ties.requires_grad_(), s, z, grid, clipped_gradient=clipped)
    assert same_bits(out.detach(), torch.from_numpy(expected))


@given(x=TENSORS, grid=st.sampled_from(GRIDS))
@settings(max_examples=50, deadline=None)
def test_gradients_do_not_change_the_values(x, grid):
    scale, zero_point = affine_parameters(*per_channel(x / 2), grid)
    tensor = torch.from_numpy(x)
    plain = fake_quantize(tensor, scale, zero_point, grid, clipped_gradient=False)
    for x_learns, scale_learns in ((True, False), (False, True), (True, True)):
        for clipped in (False, True):
            leaves = (
                tensor.clone().requires_grad_(x_learns),
                scale.clone().requires_grad_(scale_learns),
            )
            out = fake_quantize(*leaves, zero_point, grid, clipped_gradient=clipped)
            assert out.requires_grad
            assert same_bits(out.detach(), plain)
            with torch.no_grad():
                out = fake_quantize(*leaves, zero_point, grid, clipped_gradient=clipped)
            assert not out.requires_grad
            assert same_bits(out, plain)


@pytest.mark.parametrize("bits", range(2, 9))
def test_a_range_of_width_zero_has_no_zero_point_on_a_symmetric_grid(bits):
    nothing = torch.zeros(3)
    scale, zero_point = affine_parameters(
        nothing, nothing, Grid(1 - 2 ** (bits - 1), 2 ** (bits - 1) - 1)
    )
    assert not zero_point.any()
    assert (scale > 0).all()
