"""Heat maps of inputs that are not pictures."""

import torch

from dreamquant import InputSpec
from dreamquant.results.heat import as_shown, heat

FEATURES = InputSpec(shape=(1, 6, 4), mean=(0.0,), std=(1.0,), num_classes=3)


def test_features_become_colours_from_least_to_greatest():
    values = torch.arange(24.0).view(1, 1, 6, 4) - 9
    shown, spec = as_shown(values, FEATURES)
    assert shown.shape == (1, 3, 6, 4)
    assert (spec.shape, spec.mean, spec.std) == ((3, 6, 4), (0.0,) * 3, (1.0,) * 3)
    brightness = shown.mean(1).flatten()
    assert brightness[0] == brightness.min()
    assert brightness[-1] == brightness.max()
    assert (shown >= 0).all()
    assert (shown <= 1).all()


def test_each_image_has_its_own_range_and_a_flat_one_is_one_colour():
    values = torch.stack([torch.rand(1, 3, 3), 100 * torch.rand(1, 3, 3), torch.ones(1, 3, 3)])
    shown = heat(values)
    for own, colours in zip(values[:2], shown[:2], strict=True):
        low, high = (colours.flatten(1)[:, i] for i in (own.argmin(), own.argmax()))
        assert torch.allclose(low, shown[2, :, 0, 0])
        assert torch.allclose(high, torch.tensor([0.94, 0.98, 0.13]))
    assert shown[2].flatten(1).std(1).max() == 0


def test_pictures_and_colour_images_stay_as_they_are():
    grey = torch.rand(2, 1, 6, 4)
    assert as_shown(grey, FEATURES) == (grey, FEATURES)
    colour = InputSpec(shape=(3, 6, 4), mean=(0.5,) * 3, std=(0.1,) * 3, num_classes=3)
    images = 9 * torch.randn(2, 3, 6, 4)
    assert as_shown(images, colour) == (images, colour)
