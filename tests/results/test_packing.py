import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dreamquant.errors import ResultError
from dreamquant.results.packing import pack, unpack

BITS = st.integers(1, 8)
SHAPES = st.lists(st.integers(0, 7), max_size=4).map(tuple)


@given(bits=BITS, shape=SHAPES, seed=st.integers(0, 2**31))
def test_unpack_undoes_pack(bits, shape, seed):
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randint(2**bits, shape, generator=generator, dtype=torch.int32)
    packed = pack(codes, bits)
    assert packed.dtype == torch.uint8
    assert packed.shape == (math.ceil(codes.numel() * bits / 8),)
    unpacked = unpack(packed, bits, shape)
    assert unpacked.dtype == torch.uint8
    assert unpacked.shape == shape
    assert torch.equal(unpacked.int(), codes)


@given(bits=BITS, codes=st.lists(st.integers(0, 255), max_size=40))
def test_stream_is_one_little_endian_number(bits, codes):
    codes = [code % 2**bits for code in codes]
    number = sum(code << (bits * index) for index, code in enumerate(codes))
    expected = number.to_bytes(math.ceil(len(codes) * bits / 8), "little")
    assert bytes(pack(torch.tensor(codes, dtype=torch.uint8), bits).tolist()) == expected


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int32, torch.int64])
@pytest.mark.parametrize("bits", [4, 8])
def test_any_integer_dtype_and_layout(dtype, bits):
    codes = torch.arange(12, dtype=dtype).reshape(3, 4).T
    assert torch.equal(unpack(pack(codes, bits), bits, (4, 3)), codes.to(torch.uint8))


@pytest.mark.parametrize(("codes", "bits"), [([8], 3), ([-1], 3), ([256], 8), ([0, 2], 1)])
def test_code_out_of_range(codes, bits):
    with pytest.raises(ValueError, match="outside 0"):
        pack(torch.tensor(codes), bits)


def test_codes_must_be_integers():
    with pytest.raises(ValueError, match="not integers"):
        pack(torch.zeros(3), 4)


@pytest.mark.parametrize("bits", [0, 9, -1])
def test_bits_out_of_range(bits):
    with pytest.raises(ValueError, match="1 to 8"):
        pack(torch.zeros(3, dtype=torch.int32), bits)
    with pytest.raises(ValueError, match="1 to 8"):
        unpack(torch.zeros(3, dtype=torch.uint8), bits, (3,))


@pytest.mark.parametrize(
    "packed",
    [
        torch.zeros(2, dtype=torch.uint8),
        torch.zeros(4, dtype=torch.uint8),
        torch.zeros(3, dtype=torch.int32),
        torch.zeros((3, 1), dtype=torch.uint8),
    ],
)
def test_damaged_packing(packed):
    with pytest.raises(ResultError, match="3 bytes expected"):
        unpack(packed, 4, (2, 3))
