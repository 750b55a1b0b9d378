"""Multi-head attention gives the same result when it is split into parts."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from dreamquant.errors import NetworkError
from dreamquant.networks.attention import SplitAttention, split_attention
from dreamquant.quantization.convert import quantize_network
from dreamquant.quantization.scheme import Bits, Scheme

OPTIONS = {
    "plain": {},
    "batch first": {"batch_first": True},
    "no bias": {"bias": False},
    "other widths": {"kdim": 6, "vdim": 4},
    "other widths without bias": {"kdim": 6, "vdim": 4, "bias": False},
}


def inputs(options):
    widths = 8, options.get("kdim", 8), options.get("vdim", 8)
    lengths = 5, 7, 7
    x = [torch.randn(3, n, width) for n, width in zip(lengths, widths, strict=True)]
    return x if options.get("batch_first") else [each.transpose(0, 1) for each in x]


@pytest.mark.parametrize("mask", ["none", "bool", "float", "heads", "padding", "both"])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_parts_are_the_whole(options, mask):
    torch.manual_seed(0)
    whole = nn.MultiheadAttention(8, 2, **options).eval()
    given = {}
    if mask in ("bool", "both"):
        given["attn_mask"] = torch.ones(5, 7, dtype=torch.bool).triu(2)
    if mask == "float":
        given["attn_mask"] = torch.randn(5, 7)
    if mask == "heads":
        given["attn_mask"] = torch.randn(6, 5, 7)
    if mask in ("padding", "both"):
        given["key_padding_mask"] = torch.arange(7).expand(3, 7) > torch.tensor([[6], [5], [4]])
    x = inputs(options)
    expected, _ = whole(*x, **given)
    found, weights = SplitAttention(whole)(*x, **given)
    torch.testing.assert_close(found, expected)
    assert weights is None


def test_an_image_without_a_batch():
    whole = nn.MultiheadAttention(8, 2).eval()
    x = torch.randn(5, 8)
    torch.testing.assert_close(SplitAttention(whole)(x, x, x)[0], whole(x, x, x)[0])


def test_every_attention_of_a_network_is_split_and_its_parameters_kept():
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    network = nn.TransformerEncoder(layer, 2).eval()
    x = torch.randn(2, 5, 8)
    expected, count = network(x), sum(p.numel() for p in network.parameters())
    assert split_attention(network) is network
    assert not any(isinstance(m, nn.MultiheadAttention) for m in network.modules())
    assert sum(p.numel() for p in network.parameters()) == count
    torch.testing.assert_close(network(x), expected)


def test_keys_of_its_own_are_refused():
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = nn.MultiheadAttention(8, 2, add_bias_kv=True, batch_first=True)
            self.head = nn.Linear(8, 5)

        def forward(self, x):
            return self.head(self.attention(x, x, x)[0].mean(1))

    network, x = Own().eval(), torch.randn(2, 5, 8)
    with pytest.raises(NetworkError, match="add_bias_kv") as refused:
        quantize_network(network, Scheme(Bits(8, 8), "operands"), x)
    assert refused.value.remedy.startswith("use --placement layer-input")
    _, found = quantize_network(network, Scheme(Bits(8, 8), "layer-input"), x)
    assert found.left_in_float == ("MultiheadAttention attention",)
