import pytest
import torch
from torch import nn

from dreamquant.quantization.ranges import MovingRange, per_channel_range


def batch(low, high):
    return torch.tensor([[low, 0.5 * (low + high)], [high, low]])


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9, 0.999])
def test_equals_the_bias_corrected_average_by_hand(momentum):
    ranges = [(-1.0, 2.0), (-3.0, 0.5), (0.25, 8.0), (-0.5, -0.25), (-9.0, 1.0)] * 20
    moving = MovingRange(momentum)
    for count, (low, high) in enumerate(ranges, 1):
        moving.update(batch(low, high))
        weights = [momentum ** (count - i) for i in range(1, count + 1)]
        expected = [
            sum(w * seen[end] for w, seen in zip(weights, ranges, strict=False)) / sum(weights)
            for end in (0, 1)
        ]
        assert [value.item() for value in moving.read()] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9, 0.999])
@pytest.mark.parametrize(
    ("low", "high"), [(-1.0, 1.0), (0.0, 3.7), (-2.6, -0.1), (1e-30, 1e30), (5.0, 5.0)]
)
def test_a_constant_input_gives_exactly_its_range(momentum, low, high):
    # The published quantizer gives 1, 5.3, 17.8, ... for a constant 1.
    moving, x = MovingRange(momentum), batch(low, high)
    for _ in range(50):
        moving.update(x)
        assert moving.read() == (x.min(), x.max())


def test_nothing_seen_is_zero():
    assert moving_values(MovingRange(0.9)) == [0, 0]


def moving_values(moving):
    return [value.item() for value in moving.read()]


def test_what_was_read_does_not_move():
    moving = MovingRange(0.9)
    moving.update(batch(-1.0, 1.0))
    low, high = moving.read()
    moving.update(batch(-5.0, 5.0))
    assert (low.item(), high.item()) == (-1, 1)


def test_state_goes_on_elsewhere():
    moving, other = MovingRange(0.9), MovingRange(0.9)
    moving.update(batch(-1.0, 1.0))
    other.load_state_dict(moving.state_dict())
    for each in (moving, other):
        each.update(batch(-3.0, 2.0))
    assert moving_values(moving) == moving_values(other)


def test_no_gradient_is_kept():
    moving = MovingRange(0.9)
    moving.update(batch(-1.0, 1.0).requires_grad_())
    assert not any(value.requires_grad for value in moving.read())


def test_nan_stays_visible():
    moving = MovingRange(0.9)
    moving.update(torch.tensor([1.0, float("nan")]))
    assert all(value.isnan() for value in moving.read())


@pytest.mark.parametrize(
    ("layer", "axis", "channels"),
    [
        (nn.Conv2d(3, 5, 3), 0, 5),
        (nn.Conv2d(6, 4, 3, groups=2), 0, 4),
        (nn.Conv2d(4, 4, 3, groups=4), 0, 4),
        (nn.Conv1d(3, 5, 3), 0, 5),
        (nn.Linear(7, 5), 0, 5),
        (nn.ConvTranspose2d(3, 5, 2), 1, 5),
        (nn.ConvTranspose2d(4, 6, 2, groups=2), 1, 3),
    ],
)
def test_range_of_each_channel(layer, axis, channels):
    low, high = per_channel_range(layer.weight, axis)
    assert low.shape == high.shape == (channels,)
    assert not low.requires_grad
    for channel in range(channels):
        weights = layer.weight.select(axis, channel)
        assert (low[channel], high[channel]) == (weights.min(), weights.max())
