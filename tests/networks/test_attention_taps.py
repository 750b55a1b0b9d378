"""Taps of attention read attention in every way to call it, and refuse networks without it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from dreamquant.errors import NetworkError
from dreamquant.networks.attention_taps import (
    AttentionScores,
    HeadOutputs,
    PatchAttention,
    PatchTokens,
)
from dreamquant.networks.demo.transformer import Transformer
from dreamquant.quantization.convert import quantize_network
from dreamquant.quantization.scheme import Bits, Scheme


class Written(nn.Module):
    """Attention of one head as products and a softmax, with a scale in between."""

    def __init__(self, tokens=5, width=6):
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(width, width) for _ in range(3))
        self.out = nn.Linear(width, 3)

    def forward(self, x):
        scores = self.q(x) @ self.k(x).transpose(-2, -1)
        return self.out((scores * 0.4).softmax(-1) @ self.v(x)).mean(1)


def tapped(tap, network, x):
    network.eval()
    with torch.no_grad():
        tap.require(network, x)
        with tap.watch(network) as collected:
            network(x)
        return tap.value(collected())


def small(heads=2):
    torch.manual_seed(0)
    network = Transformer(nn.Conv2d(1, 8, 2, stride=2), 4, width=8, depth=2, heads=heads)
    nn.init.normal_(network.cls)
    return network.eval()


def test_products_and_softmax_are_read_as_they_stand():
    torch.manual_seed(0)
    network, x = Written(), torch.randn(2, 5, 6)
    q, k, v = network.q(x), network.k(x), network.v(x)
    scores = torch.einsum("bld,bsd->bls", q, k)
    maps = torch.softmax(0.4 * scores, -1)
    (found,) = tapped(AttentionScores(), network, x)
    assert torch.allclose(found, scores[:, None])
    (found,) = tapped(PatchAttention(), network, x)
    assert torch.allclose(found, maps.mean(1)[:, None])
    (found,) = tapped(HeadOutputs(), network, x)
    assert torch.allclose(found, torch.einsum("bls,bsd->bld", maps, v)[:, None], atol=1e-6)


def test_class_token_is_left_out_where_patches_are_read():
    network, x = small(), torch.randn(3, 1, 4, 4)
    tokens = torch.cat([network.cls.expand(3, -1, -1), network.embed(x).flatten(2).mT], 1)
    block = network.blocks[0]
    split = block.attention.qkv(block.norm1(tokens + network.position)).view(3, 5, 3, 2, 4)
    q, k, v = split.permute(2, 0, 3, 1, 4)
    scores = torch.einsum("bhle,bhse->bhls", q, k)
    maps = torch.softmax(scores / 2, -1)
    outputs = torch.einsum("bhls,bhse->bhle", maps, v)
    assert torch.allclose(tapped(AttentionScores(), network, x)[0], scores[..., 1:, 1:], atol=1e-6)
    assert torch.allclose(tapped(PatchAttention(), network, x)[0], maps[:, :, 0, 1:], atol=1e-6)
    assert torch.allclose(tapped(HeadOutputs(), network, x)[0], outputs, atol=1e-6)
    assert torch.allclose(
        tapped(PatchTokens(), network, x)[0], outputs[:, :, 1:].mean(1), atol=1e-6
    )


@pytest.mark.parametrize("norm_first", [False, True])
def test_multihead_attention_is_read_in_parts_and_stays_whole(norm_first):
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, norm_first=norm_first)
    network, x = (
        nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).eval(),
        torch.randn(3, 5, 8),
    )
    before = network(x)
    found = tapped(HeadOutputs(), network, x)
    assert [each.shape for each in found] == [(3, 2, 5, 4)] * 2
    assert isinstance(network.layers[0].self_attn, nn.MultiheadAttention)
    assert torch.allclose(network(x), before)


def test_student_is_read_with_its_quantized_operands():
    network, x = small(), torch.randn(4, 1, 4, 4)
    student, _ = quantize_network(network, Scheme(Bits(4, 4), placement="operands"), x)
    student.observe(True)
    with torch.no_grad():
        student(x)
    student.observe(False)
    exact, found = tapped(HeadOutputs(), network, x), tapped(HeadOutputs(), student, x)
    assert [each.shape for each in found] == [each.shape for each in exact]
    assert not torch.allclose(found[1], exact[1], atol=1e-3)


def test_networks_without_attention_or_with_one_head_are_refused_in_words():
    with pytest.raises(NetworkError, match="the network has none"):
        AttentionScores().require(nn.Sequential(nn.Linear(4, 3), nn.Softmax(-1)), torch.ones(2, 4))
    with pytest.raises(NetworkError, match="compares at least 2 attention heads, and the network"):
        AttentionScores(heads=2).require(small(heads=1), torch.ones(2, 1, 4, 4))
