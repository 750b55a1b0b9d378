"""Where tokens of a transformer can be left out, and what the network computes without them."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from dreamquant.errors import NetworkError
from dreamquant.networks.attention_taps import HeadOutputs, PatchTokens
from dreamquant.networks.demo.transformer import Block, Transformer
from dreamquant.networks.token_sets import find_token_set

IMAGES = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))


class Pooled(nn.Module):
    """No class token; the encoder adds positions; ``head`` reads what ``read`` makes of tokens."""

    def __init__(self, read):
        super().__init__()
        self.embed, self.read = nn.Conv2d(1, 8, 2, 2), read
        self.encoder = Encoder()
        self.head = nn.LazyLinear(5)

    def forward(self, x):
        return self.head(self.read(self.encoder(self.embed(x).flatten(2).transpose(1, 2))))


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.position = nn.Parameter(torch.randn(1, 16, 8))
        self.blocks = nn.Sequential(Block(8, 2, 16), Block(8, 2, 16))

    def forward(self, x):
        return self.blocks(x + self.position)


def made(build):
    torch.manual_seed(0)
    network = build().eval()
    with torch.no_grad():
        network(IMAGES)
    return network.requires_grad_(False)


def with_class_token():
    return Transformer(nn.Conv2d(1, 8, 2, 2), 16, width=8, depth=2, heads=2)


def test_patches_are_left_out_before_the_first_block():
    network = made(with_class_token)
    place = find_token_set(network, IMAGES)
    assert (place.module, place.leading, place.patches) == ("blocks", 1, 16)
    kept = torch.tensor([[0, 3, 9], [1, 2, 15], [4, 5, 6]])
    patches = network.embed(IMAGES).flatten(2).transpose(1, 2)
    tokens = torch.cat([network.cls.expand(3, -1, -1), patches], 1) + network.position
    fewer = torch.stack([t[[0, *(k + 1).tolist()]] for t, k in zip(tokens, kept, strict=True)])
    with place.keeping(network, kept):
        found = network(IMAGES)
    assert torch.equal(found, network.head(network.norm(network.blocks(fewer)[:, 0])))
    assert not network.blocks._forward_pre_hooks


def test_taps_still_tell_patches_from_the_class_token():
    network = made(with_class_token)
    place = find_token_set(network, IMAGES)
    kept = torch.arange(5).expand(3, -1)
    for tap, shape in ((PatchTokens(), (3, 5, 4)), (HeadOutputs(), (3, 2, 6, 4))):
        with place.keeping(network, kept), tap.watch(network) as collect:
            network(IMAGES)
        assert [tuple(x.shape) for x in collect()] == [shape] * 2
    attention = place.attention(network, IMAGES, torch.arange(16).expand(3, -1))
    assert attention.shape == (3, 16)
    assert (attention.sum(1) < 1).all()  # the class token has the rest


def test_a_module_that_adds_positions_is_passed_by():
    place = find_token_set(made(lambda: Pooled(lambda x: x.mean(1))), IMAGES)
    assert (place.module, place.leading, place.patches) == ("encoder.blocks", 0, 16)


def test_a_network_that_reads_tokens_by_their_places_is_refused():
    with pytest.raises(NetworkError, match="by their places"):
        find_token_set(made(lambda: Pooled(lambda x: x.flatten(1))), IMAGES)
