"""Procedural images depend on the seed, and have the requested moments and any shape."""

from dataclasses import replace

import pytest
import torch

from dreamquant import InputSpec
from dreamquant.synthesis.dead_leaves import DeadLeaves
from dreamquant.synthesis.fractals import Fractals
from dreamquant.synthesis.pink_noise import PinkNoise
from dreamquant.synthesis.procedural import (
    CHUNK,
    WhiteNoise,
    colours,
    drawn_inputs,
    input_moments,
    matched,
    pixel_moments,
    procedural,
    uniform,
)
from dreamquant.synthesis.suited import Suited

KINDS = [WhiteNoise(), DeadLeaves(leaves=20), PinkNoise(), Fractals()]
SPEC = InputSpec(shape=(3, 16, 16), mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.3), num_classes=2)


def random(seed=0):
    return torch.Generator().manual_seed(seed)


def spec_of(shape):
    return InputSpec(shape, (0.5,) * shape[0], (0.25,) * shape[0], 2)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: type(kind).__name__)
def test_a_seed_gives_the_same_images_and_another_seed_others(kind):
    one, same, other = (kind.draw(3, (3, 12, 16), random(seed)) for seed in (5, 5, 6))
    assert one.shape == (3, 3, 12, 16)
    assert one.equal(same)
    assert not one.equal(other)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: type(kind).__name__)
def test_the_first_images_are_the_same_however_many_are_drawn(kind):
    many = kind.draw(2 * CHUNK + 3, (3, 8, 8), random())
    for count in (1, CHUNK, CHUNK + 1):
        assert kind.draw(count, (3, 8, 8), random()).equal(many[:count])


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 7, 13), (4, 33, 9), (2, 1, 5)])
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: type(kind).__name__)
def test_any_number_of_channels_and_any_size(kind, shape):
    images = procedural(kind, 5, shape, input_moments(spec_of(shape)), random())
    assert images.shape == (5, *shape)
    assert images.dtype == torch.float32
    assert images.isfinite().all()


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: type(kind).__name__)
def test_images_of_one_draw_differ(kind):
    images = kind.draw(CHUNK + 2, (3, 16, 16), random()).flatten(1)
    apart = (images[:, None] - images[None]).abs().amax(2)
    assert (apart + torch.eye(len(images)) > 1e-3).all()


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: type(kind).__name__)
def test_mean_and_deviation_are_those_of_photographs_in_the_networks_units(kind):
    moments = input_moments(SPEC)
    images = procedural(kind, 64, SPEC.image, moments, random())
    pixels = images * torch.tensor(SPEC.std)[:, None, None] + torch.tensor(SPEC.mean)[:, None, None]
    assert pixels.min() >= -1e-6
    assert pixels.max() <= 1 + 1e-6
    # What is clamped moves them a little.
    assert torch.allclose(pixels.mean((0, 2, 3)), torch.full((3,), 0.46), atol=0.05)
    assert torch.allclose(pixels.std((0, 2, 3)), torch.full((3,), 0.24), atol=0.06)


def test_pixel_moments_are_those_of_pixels_normalised():
    mean, deviation, low, high = pixel_moments(SPEC)
    for c, (centre, spread) in enumerate(zip(SPEC.mean, SPEC.std, strict=True)):
        wanted = [(0.46 - centre) / spread, 0.24 / spread, (0 - centre) / spread]
        wanted.append((1 - centre) / spread)
        found = [values[c].item() for values in (mean, deviation, low, high)]
        assert found == pytest.approx(wanted, rel=1e-5)


def test_matching_is_exact_where_nothing_is_clamped():
    moments = input_moments(SPEC)
    wide = moments._replace(low=moments.low - 100, high=moments.high + 100)
    images = matched(7 + 3 * torch.randn(9, 3, 6, 5, generator=random()), wide)
    assert torch.allclose(images.mean((0, 2, 3)), wide.mean.flatten(), atol=1e-5)
    assert torch.allclose(images.std((0, 2, 3), correction=0), wide.deviation.flatten(), rtol=1e-5)


def test_a_channel_without_any_difference_becomes_its_mean():
    moments = input_moments(SPEC)
    images = matched(torch.ones(2, 3, 4, 4), moments)
    assert torch.allclose(images, moments.mean.expand_as(images), atol=1e-6)


def test_uniform_values_fill_their_range():
    values = uniform(-2, 3, (10_000,), random())
    assert values.min() >= -2
    assert values.max() < 3
    assert values.mean().item() == pytest.approx(0.5, abs=0.1)


def test_channels_of_colours_vary_together():
    palette = colours(200, 20, 3, random()).flatten(0, 1)
    correlation = torch.corrcoef(palette.T)
    assert (correlation > 0.5).all()
    assert (correlation - torch.eye(3) < 0.99).all()


def test_leaves_cover_the_ground_the_more_of_them_fall():
    def uncovered(leaves):
        kind = DeadLeaves(leaves=leaves)
        return (kind._topmost(24, 24, random()) == 0).float().mean().item()

    assert uncovered(1) > uncovered(10) > uncovered(200)
    assert uncovered(200) < 0.1


@pytest.mark.parametrize("exponent", [1.5, 2.0, 3.0])
def test_radii_follow_the_power_law(exponent):
    kind = DeadLeaves(leaves=255, exponent=exponent, smallest=0.05, largest=0.5)
    radii = torch.cat([kind._radii(100, random(seed)).flatten() for seed in range(40)])
    assert radii.min() >= 5 - 1e-3
    assert radii.max() <= 50 + 1e-3
    power = 1 - exponent
    for at in (8, 15, 30):  # the cumulative distribution at some radii
        wanted = (at**power - 5**power) / (50**power - 5**power)
        assert (radii < at).float().mean().item() == pytest.approx(wanted, abs=0.01)


def test_the_spectrum_of_pink_noise_falls_as_asked():
    images = PinkNoise(lowest=1.0, highest=1.0).draw(64, (1, 64, 64), random())
    amplitude = torch.fft.rfft2(images).abs().square().mean((0, 1)).sqrt()
    along = amplitude[0, 1:32]  # horizontal waves, 1 to 31 an image
    waves = torch.arange(1, 32).log()
    centred = waves - waves.mean()
    slope = (centred * along.log()).sum() / centred.square().sum()
    assert slope.item() == pytest.approx(-1.0, abs=0.15)


def test_fractals_are_neither_blank_nor_full():
    images = Fractals().draw(16, (3, 32, 32), random())
    assert (images.std((1, 2, 3)) > 1e-3).all()


FEATURES = InputSpec(
    (1, 20, 3), (0.0,), (1.0,), 4, features=True, centre=(-14.0, 0.0, 2.0), spread=(20.0, 1.0, 0.5)
)


def test_features_have_the_mean_and_deviation_of_their_column():
    inputs = drawn_inputs(Suited(), 64, FEATURES, random())
    assert torch.allclose(inputs.mean((0, 1, 2)), torch.tensor(FEATURES.centre), atol=2)
    assert torch.allclose(inputs.std((0, 1, 2)), torch.tensor(FEATURES.spread), rtol=0.1)


def test_the_suited_recipe_is_noise_for_features_of_known_scale_and_dead_leaves_elsewhere():
    pictures = drawn_inputs(Suited(), 4, SPEC, random())
    assert pictures.equal(drawn_inputs(DeadLeaves(), 4, SPEC, random()))
    unknown = replace(FEATURES, centre=(), spread=())
    assert drawn_inputs(Suited(), 4, unknown, random()).equal(
        drawn_inputs(DeadLeaves(), 4, unknown, random())
    )
    assert drawn_inputs(Suited(), 4, FEATURES, random()).equal(
        drawn_inputs(WhiteNoise(), 4, FEATURES, random())
    )
