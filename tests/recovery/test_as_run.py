"""Layers whose forward pass changes the convolution's input."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dreamquant.errors import NetworkError
from dreamquant.methods.stages import SMALL
from dreamquant.quantization.scheme import Bits, Scheme
from dreamquant.recovery.anytime import Anytime
from dreamquant.recovery.as_run import as_run
from dreamquant.recovery.closed_form import RoundByLeastSquares
from dreamquant.recovery.gram import Sums

IMAGES = torch.randn(2, 4, 9, 9, generator=torch.Generator().manual_seed(0))


class Lopsided(nn.Conv2d):
    """Pads at the right and at the bottom, and steps by two, whatever its own numbers are."""

    def forward(self, x):
        return F.conv2d(F.pad(x, (0, 1, 0, 1)), self.weight, self.bias, 2, groups=self.groups)


class Spreading(nn.ConvTranspose2d):
    """Steps by two, whatever its own numbers are."""

    def forward(self, x):
        return F.conv_transpose2d(x, self.weight, self.bias, 2, output_padding=1)


class Standardized(nn.Conv2d):
    """Computes with another tensor than its weight."""

    def forward(self, x):
        return F.conv2d(x, self.weight - self.weight.mean(), self.bias)


class Doubling(nn.Linear):
    """Reads twice its input."""

    def forward(self, x):
        return F.linear(input=2 * x, weight=self.weight, bias=self.bias)


def moments(layer, x, wanted):
    sums = Sums(layer, None, torch.Generator())
    sums.add(x, wanted)
    return sums.moments()


def test_layers_of_the_library_are_left_as_they_are():
    layer = nn.Conv2d(4, 4, 3, padding=1)
    assert as_run(layer, IMAGES) == (layer, IMAGES)


@pytest.mark.parametrize("groups", [1, 4])
def test_moments_are_those_of_the_plain_layer_on_the_padded_input(groups):
    layer = Lopsided(4, 8, 3, groups=groups, bias=False).requires_grad_(False)
    plain = nn.Conv2d(4, 8, 3, 2, groups=groups, bias=False)
    padded = F.pad(IMAGES, (0, 1, 0, 1))
    seen, x = as_run(layer, IMAGES)
    wanted = layer(IMAGES)
    for own, other in zip(moments(seen, x, wanted), moments(plain, padded, wanted), strict=True):
        torch.testing.assert_close(own, other)
    assert layer.stride == (1, 1)


def test_a_transposed_layer_is_seen_with_the_stride_that_it_runs_with():
    layer = Spreading(4, 6, 3, bias=False).requires_grad_(False)
    plain = nn.ConvTranspose2d(4, 6, 3, 2, output_padding=1, bias=False)
    seen, x = as_run(layer, IMAGES)
    wanted = layer(IMAGES)
    for own, other in zip(moments(seen, x, wanted), moments(plain, IMAGES, wanted), strict=True):
        torch.testing.assert_close(own, other)


def test_a_linear_layer_is_given_what_its_product_reads():
    x = torch.randn(3, 5)
    assert torch.equal(as_run(Doubling(5, 2), x)[1], 2 * x)


def test_a_layer_that_computes_its_weight_is_refused():
    with pytest.raises(NetworkError, match=r"Standardized .* its weight is not found") as caught:
        as_run(Standardized(4, 4, 3), IMAGES)
    assert caught.value.remedy == (
        "use a method that does not solve for weights, such as --method squant"
    )


def test_a_computed_weight_is_found_before_the_run():
    network = nn.Sequential(Standardized(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten())
    given = network.eval(), torch.zeros(2, 3, 8, 8), Scheme(Bits(4, 4), placement="layer-input")
    with pytest.raises(NetworkError, match="its weight is not found"):
        RoundByLeastSquares().suited(*given)
    auto = Anytime(SMALL).suited(*given)
    assert auto.stages == SMALL[:1]
    assert "its weight is not found" in auto.left_out[0][1]
