"""Convolutions as matrix products."""

import pytest
import torch
from torch import nn

from dreamquant.recovery.unfold import (
    count_positions,
    groups_of,
    input_rows,
    output_rows,
    weight_from_rows,
    weight_rows,
)

LAYERS = {
    "linear": (lambda: nn.Linear(5, 4), (3, 5)),
    "linear of tokens": (lambda: nn.Linear(5, 4), (3, 7, 5)),
    "1d": (lambda: nn.Conv1d(4, 6, 3, 2, padding=1), (2, 4, 9)),
    "2d": (lambda: nn.Conv2d(3, 4, (3, 2), (1, 2), padding=(2, 1)), (2, 3, 7, 8)),
    "3d": (lambda: nn.Conv3d(2, 4, 2, padding=1), (2, 2, 3, 4, 5)),
    "dilated": (lambda: nn.Conv2d(3, 4, 3, dilation=2, padding=2), (2, 3, 8, 8)),
    "same": (lambda: nn.Conv2d(3, 4, (2, 3), padding="same"), (2, 3, 6, 6)),
    "valid": (lambda: nn.Conv2d(3, 4, 3, padding="valid"), (2, 3, 6, 6)),
    "reflected": (lambda: nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect"), (2, 3, 6, 6)),
    "circular": (lambda: nn.Conv2d(3, 4, 3, padding=1, padding_mode="circular"), (2, 3, 6, 6)),
    "grouped": (lambda: nn.Conv2d(6, 4, 3, groups=2), (2, 6, 5, 5)),
    "depthwise": (lambda: nn.Conv2d(6, 6, 3, 2, padding=1, groups=6), (2, 6, 7, 7)),
    "depthwise, two each": (lambda: nn.Conv2d(3, 6, 3, groups=3), (2, 3, 7, 7)),
    "transposed": (
        lambda: nn.ConvTranspose2d(3, 5, 3, 2, padding=1, output_padding=1),
        (2, 3, 4, 5),
    ),
    "transposed grouped": (
        lambda: nn.ConvTranspose1d(4, 6, 4, 3, groups=2, dilation=2, padding=1),
        (2, 4, 5),
    ),
}


@pytest.mark.parametrize(("make", "shape"), LAYERS.values(), ids=LAYERS.keys())
@torch.no_grad()
def test_a_layer_is_a_matrix_product_of_its_rows(make, shape):
    torch.manual_seed(0)
    layer = make()
    x = torch.randn(shape)
    y = layer(x)
    positions = torch.randperm(count_positions(y, layer))
    rows = input_rows(x, layer, positions)
    bias = layer.bias.view(groups_of(layer), 1, -1)
    product = rows @ weight_rows(layer.weight, layer).transpose(1, 2) + bias
    assert torch.allclose(product, output_rows(y, layer, positions), atol=1e-5)


@pytest.mark.parametrize("make", [make for make, _ in LAYERS.values()], ids=LAYERS.keys())
def test_weights_are_put_back_from_their_rows(make):
    layer = make()
    assert torch.equal(weight_from_rows(weight_rows(layer.weight, layer), layer), layer.weight)
