"""The loss of block reconstruction."""

import pytest
import torch

from dreamquant.terms.unit_error import CHANNEL_WEIGHTS, UnitError


@pytest.mark.parametrize("shape", [(3, 4, 2, 2), (3, 5, 4), (3, 4)])
def test_the_error_is_a_mean_over_all_but_channels_and_a_weighted_sum_over_these(step_for, shape):
    given, wanted, weights = torch.randn(shape), torch.randn(shape), torch.rand(1, 4)
    loss = UnitError()(
        step_for(
            UnitError(), teacher=wanted, student=given, condition={CHANNEL_WEIGHTS: weights}.get
        )
    )
    gap = (given.double() - wanted.double()).square()
    last = gap if len(shape) == 3 else gap.movedim(1, -1)
    expected = sum(
        weights[0, c].double() * last[..., c].sum() / last[..., c].numel() for c in range(4)
    )
    assert torch.allclose(loss.double(), expected)
