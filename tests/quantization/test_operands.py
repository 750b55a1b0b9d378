"""Both operands of every matrix product are quantized, for every way to compute it."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dreamquant.errors import NetworkError, SchemeError
from dreamquant.networks.attention import dot_product_attention
from dreamquant.quantization.convert import quantize_network
from dreamquant.quantization.logarithmic import LogQuantizer
from dreamquant.quantization.scheme import Bits, Scheme
from dreamquant.results.rehearsal import rehearse

SCHEME = Scheme(Bits(8, 8), "operands")
WITH_SUMS = Scheme(Bits(8, 8), "operands", joins=8)


def tokens(count=2):
    return torch.randn(count, 6, 8, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.qkv, self.head = nn.Linear(8, 24), nn.Linear(8, 5)

    def forward(self, x):
        return self.head((x + self.attend(*self.qkv(x).chunk(3, -1))).mean(1))


class Written(Net):
    def attend(self, q, k, v):
        return (q @ k.transpose(-2, -1) * 0.3).softmax(-1) @ v


class Batched(Net):
    def attend(self, q, k, v):
        return torch.bmm(F.softmax(torch.bmm(q, k.mT), -1), v)


class Summed(Net):
    def attend(self, q, k, v):
        scores = torch.einsum("bld,bsd->bls", q, k)
        return torch.einsum("bls,bsd->bld", [scores.softmax(-1), v])


class Fused(Net):
    def attend(self, q, k, v):
        return F.scaled_dot_product_attention(q, k, v, scale=0.3)


class Module(Net):
    def __init__(self):
        super().__init__()
        self.inner = nn.MultiheadAttention(8, 2, batch_first=True)

    def attend(self, q, k, v):
        return self.inner(q, k, v, need_weights=False)[0]


class Encoder(Net):
    def __init__(self):
        super().__init__()
        self.encoder = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, activation="gelu")

    def attend(self, q, k, v):
        return self.encoder(q)


def of(network, scheme=SCHEME):
    torch.manual_seed(0)
    teacher = network().eval().requires_grad_(False)
    return teacher, *quantize_network(teacher, scheme, torch.zeros_like(tokens()))


@pytest.mark.parametrize("scheme", [SCHEME, WITH_SUMS], ids=["operands", "with sums"])
@pytest.mark.parametrize(
    ("network", "operands"),
    [(Written, 4), (Batched, 4), (Summed, 4), (Fused, 4), (Module, 4), (Encoder, 5)],
)
def test_no_product_is_left_in_float(network, operands, scheme):
    teacher, student, found = of(network, scheme)
    assert (found.left_in_float, found.float_weights, found.float_multiplications) == ((), (), 0)
    assert found.operands == (8,) * operands
    assert "softmax" in found.float_functions
    student.observe(True)
    x = tokens(16)
    student(x)
    student.observe(False)
    wanted = teacher(x)
    assert (student(x) - wanted).norm() < 0.05 * wanted.norm()
    assert not torch.equal(student(x), wanted)
    rehearse(teacher, student, scheme, tokens())


@pytest.mark.parametrize(("learned", "joins"), [("ema", None), ("learned", 8)])
@pytest.mark.parametrize("network", [Written, Batched, Summed, Fused, Module])
def test_what_softmax_gives_may_lie_on_powers_of_two(network, learned, joins):
    scheme = Scheme(Bits(8, 8), "operands", softmax="log2", ranges=learned, joins=joins)
    teacher, student, found = of(network, scheme)
    assert (found.left_in_float, found.float_multiplications) == ((), 0)
    powers = [q for q in student.operands if isinstance(q, LogQuantizer)]
    assert len(powers) == 1
    student.observe(True)
    student(tokens())
    student.observe(False)
    seen = []
    powers[0].register_forward_hook(lambda *a: seen.append(a[2] / a[0].scale))
    student(tokens())
    assert torch.equal(seen[0].log2(), seen[0].log2().round())
    assert 0 < seen[0].min() < seen[0].max() <= 1
    further = powers[0].shifted(seen[0], torch.full_like(seen[0], 2.0))
    assert torch.equal(further, seen[0] / 4)
    rehearse(teacher, student, scheme, tokens())


def test_powers_of_two_are_refused_where_no_softmax_is_rounded():
    with pytest.raises(SchemeError, match="only placement operands quantizes") as refused:
        Scheme(Bits(8, 8), "layer-input", softmax="log2")
    assert refused.value.remedy == "use --placement operands"


def test_norms_that_stay_in_float_are_counted():
    _, _, found = of(Encoder)
    assert sorted(found.float_functions) == ["layer_norm", "layer_norm", "softmax"]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"is_causal": True},
        {"scale": 0.7},
        {"attn_mask": torch.ones(6, 6, dtype=torch.bool).tril(1)},
        {"attn_mask": torch.arange(36.0).view(6, 6) / 36},
    ],
)
def test_attention_in_parts_is_attention(options):
    q, k, v = torch.randn(3, 2, 3, 6, 4).unbind()
    expected = F.scaled_dot_product_attention(q, k, v, **options)
    torch.testing.assert_close(
        dot_product_attention([nn.Identity()] * 4, q, k, v, **options), expected
    )


def test_several_heads_of_queries_may_share_one_of_keys():
    q, k, v = torch.randn(2, 4, 6, 4), torch.randn(2, 2, 6, 4), torch.randn(2, 2, 6, 4)
    expected = F.scaled_dot_product_attention(q, k, v, enable_gqa=True)
    found = dot_product_attention([nn.Identity()] * 4, q, k, v, enable_gqa=True)
    torch.testing.assert_close(found, expected)


def test_a_tensor_that_meets_itself_is_quantized_once():
    class Gram(Net):
        def attend(self, q, k, v):
            return v + (q.mT @ k).mean() + torch.bmm(q[:, :6, :6], q[:, :6, :6]).mean()

    _, student, found = of(Gram)
    assert len(found.operands) == 4
    student(tokens())


def test_a_forward_pass_that_varies_is_refused():
    class Varying(Net):
        def attend(self, q, k, v):
            return q @ k.mT @ v if len(q) == 2 else v

    _, student, _ = of(Varying)
    with pytest.raises(NetworkError, match="ran other products than the"):
        student(tokens(3))
    student(tokens(2))
