"""SQuant's invariants."""

import pytest
import torch

from dreamquant.quantization.affine import Grid, signed_grid
from dreamquant.recovery.squant import squant

WIDE = Grid(-1000, 1000)


def exact(outputs=8, inputs=12, kernel=9, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return 3 * torch.randn(outputs, inputs, kernel, generator=generator, dtype=torch.float64)


def test_errors_alone_are_nearest_rounding():
    assert torch.equal(squant(exact(), WIDE, "E"), exact().round())


@pytest.mark.parametrize("seed", range(5))
def test_errors_of_each_kernel_cancel(seed):
    gap = squant(exact(seed=seed), WIDE, "EK") - exact(seed=seed)
    assert (gap.sum(2).abs() <= 0.5 + 1e-9).all()
    assert (gap.abs() <= 1 + 1e-9).all()


@pytest.mark.parametrize("seed", range(5))
def test_errors_of_each_channel_cancel_and_kernels_stay_within_a_step(seed):
    gap = squant(exact(seed=seed), WIDE) - exact(seed=seed)
    assert (gap.sum((1, 2)).abs() <= 0.5 + 1e-9).all()
    assert (gap.sum(2).abs() <= 1 + 1e-9).all()
    assert (gap.abs() <= 1 + 1e-9).all()


def test_errors_of_channels_alone_cancel():
    gap = squant(exact(kernel=1), WIDE, "EC") - exact(kernel=1)
    assert (gap.sum((1, 2)).abs() <= 0.5 + 1e-9).all()


def test_the_largest_error_is_flipped_and_no_more_than_needed():
    values = torch.tensor([[[0.4, 1.3, -0.45, 2.4]]], dtype=torch.float64)
    # Nearest gives 0, 1, 0, 2, whose errors -0.4 - 0.3 + 0.45 - 0.4 add up to -0.65: one flip.
    assert squant(values, WIDE, "EK").flatten().tolist() == [1, 1, 0, 2]


def test_codes_stay_on_the_grid():
    codes = squant(exact() * 2, signed_grid(3))
    assert codes.min() >= -4
    assert codes.max() <= 3
    assert torch.equal(codes, codes.round())


def test_outputs_of_positive_inputs_err_less():
    values = exact(16, 32, 9)
    inputs = torch.rand(200, 32, 9, dtype=torch.float64) + 0.5

    def error(codes):
        gap = codes - values
        return torch.einsum("nik,oik->no", inputs, gap).square().mean()

    assert error(squant(values, WIDE)) < 0.5 * error(values.round())
