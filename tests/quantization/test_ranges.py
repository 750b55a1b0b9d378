import pytest
import torch

from dreamquant.quantization.affine import (
    affine_parameters,
    fake_quantize,
    signed_grid,
    unsigned_grid,
)
from dreamquant.quantization.ranges import (
    MovingRange,
    least_squares,
    per_channel_range,
    sample,
)


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


def test_range_of_each_channel():
    rows = torch.tensor([[0.5, -1.0, 2.0], [3.0, 1.0, 1.5]], requires_grad=True)
    low, high = per_channel_range(rows)
    assert (low.tolist(), high.tolist()) == ([-1.0, 1.0], [2.0, 3.0])
    assert not low.requires_grad


# ------------------------------------------------------------------------------ least squares


@pytest.mark.parametrize("grid", [signed_grid(2), signed_grid(3), unsigned_grid(3)], ids=str)
def test_no_share_of_a_range_rounds_better_than_the_one_chosen(grid):
    rows = torch.randn((4, 500), generator=torch.Generator().manual_seed(0))
    low, high = rows.amin(1), rows.amax(1)
    chosen = least_squares(rows, low, high, grid)

    def errors(scale, zero_point):
        rounded = fake_quantize(
            rows, scale[:, None], zero_point[:, None], grid, clipped_gradient=False
        )
        return (rounded - rows).square().sum(1)

    least = errors(*chosen)
    assert (least < errors(*affine_parameters(low, high, grid))).any()
    for share in torch.linspace(0.2, 1, 17):
        tried = affine_parameters(share * low, share * high, grid)
        assert (least <= errors(*tried) * (1 + 1e-6)).all()


def test_rows_on_a_grid_keep_their_whole_range():
    rows = torch.arange(8.0).repeat(2, 9) * torch.tensor([[0.5], [4.0]])
    low, high = torch.zeros(2), rows.amax(1)
    scale, zero_point = least_squares(rows, low, high, unsigned_grid(3))
    assert scale.tolist() == [0.5, 4.0]
    assert zero_point.tolist() == [0, 0]


def test_least_squares_of_nan_stay_visible():
    rows, end = torch.full((1, 9), torch.nan), torch.full((1,), torch.nan)
    assert least_squares(rows, end, end, unsigned_grid(4))[0].isnan().all()


@pytest.mark.parametrize("shape", [(16, 16, 32, 32), (16, 64, 8, 8), (4, 3, 224, 224), (5, 7)])
def test_a_sample_meets_every_image_and_every_place(shape):
    def seen(values):
        assert values.shape[0] == 1
        return values.unique().tolist()

    count, *place = shape
    images = torch.arange(count).view(-1, *[1] * len(place)).expand(shape)
    assert seen(sample(images)) == list(range(count))
    for axis, size in enumerate(place, 1):
        view = [1] * len(shape)
        view[axis] = size
        assert seen(sample(torch.arange(size).view(view).expand(shape))) == list(range(size))


def test_a_small_batch_is_its_own_sample():
    assert sample(torch.arange(35.0).view(5, 7)).flatten().tolist() == list(range(35))
