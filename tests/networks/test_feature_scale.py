"""The scale of features, read from the first batch norm."""

import torch
from torch import nn

from dreamquant.networks.feature_scale import with_scale
from dreamquant.networks.load import wrap_module
from dreamquant.networks.spec import InputSpec

SPEC = InputSpec((1, 30, 4), (0.0,), (1.0,), 5, features=True)
CENTRE, SPREAD = (-14.0, 3.0, 0.0, 0.5), (20.0, 4.0, 2.0, 1.0)


def spectra(count=400):
    """Features with levels that last, as sounds have them."""
    random = torch.Generator().manual_seed(3)
    level = torch.randn(count, 1, 1, 4, generator=random)
    unit = (level + torch.randn(count, 1, 30, 4, generator=random)) / 2**0.5
    return unit * torch.tensor(SPREAD) + torch.tensor(CENTRE)


def network(first=None, channels=24):
    torch.manual_seed(0)
    first = first or nn.Conv2d(1, channels, (5, 4))
    body = nn.Sequential(
        first, nn.BatchNorm2d(channels), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    body.append(nn.Linear(channels, 5))
    body[1].momentum = None
    body.train()(spectra())
    return body.eval()


def test_means_and_deviations_of_columns_come_near_to_those_of_training():
    spec, (note,) = with_scale(SPEC, network())
    assert torch.allclose(torch.tensor(spec.centre), torch.tensor(CENTRE), atol=0.5)
    large, medium, *small = spec.spread
    assert 15 < large < 27
    assert 2 < medium < 7
    # Beside a column of 20, what is below 2 is lost in the columns' chance correlation.
    assert all(0.1 <= each < 3 for each in small)
    assert note.startswith("the features' scale is read from the first batch norm: means ")


def test_a_batch_norm_of_few_channels_gives_one_scale_for_all_columns():
    spec, _ = with_scale(SPEC, network(channels=3))
    assert len(spec.centre) == len(spec.spread) == 4
    assert len(set(spec.centre)) == len(set(spec.spread)) == 1
    assert 3 < spec.spread[0] < 20


def test_a_batch_norm_behind_something_that_is_not_linear_says_nothing():
    first = nn.Sequential(nn.Conv2d(1, 24, (5, 4)), nn.Tanh())
    assert with_scale(SPEC, network(first)) == (SPEC, ())


def test_pixels_a_known_scale_and_networks_without_batch_norm_are_left_alone():
    pixels = InputSpec((1, 30, 4), (0.0,), (1.0,), 5)
    assert with_scale(pixels, network()) == (pixels, ())
    known, _ = with_scale(SPEC, network())
    assert with_scale(known, network()) == (known, ())
    plain = nn.Sequential(nn.Flatten(), nn.Linear(120, 5))
    assert with_scale(SPEC, plain) == (SPEC, ())


def test_a_network_in_memory_has_it_too_and_stays_as_it_was():
    module = network()
    before = {name: each.clone() for name, each in module.state_dict().items()}
    wrapped = wrap_module(module, SPEC)
    assert len(wrapped.input.spread) == 4
    assert any("scale" in note for note in wrapped.notes)
    assert all(each.equal(before[name]) for name, each in module.state_dict().items())
