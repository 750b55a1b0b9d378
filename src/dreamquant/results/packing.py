"""Packs small integers without gaps: a 4-bit code takes 1/2 byte, a 3-bit code 3/8 byte."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from dreamquant.errors import ResultError


def pack(codes: Tensor, bits: int) -> Tensor:
    """Return ``codes`` as one stream of ``bits``-wide little-endian numbers without gaps.

    Args:
        codes: integers 0 … 2**bits - 1 in any shape, any integer dtype and on any device; codes
            of a signed grid are shifted by its lowest code first.
        bits: 1 … 8.

    Returns:
        uint8 (ceil(codes.numel() * bits / 8),) on the CPU; bits left over in the last byte are 0.

    Raises:
        ValueError: a code or ``bits`` is out of range, or the codes are not integers.
    """
    _check_bits(bits)
    if codes.is_floating_point() or codes.is_complex():
        raise ValueError(f"codes are {codes.dtype}, not integers")
    # As Python integers, because 2**8 wraps to 0 when compared with a uint8 tensor.
    low, high = (int(codes.min()), int(codes.max())) if codes.numel() else (0, 0)
    if low < 0 or high >= 2**bits:
        raise ValueError(f"codes range from {low} to {high}, outside 0 … {2**bits - 1}")
    flat = codes.detach().to("cpu", torch.uint8).reshape(-1, 1).numpy()
    stream = np.unpackbits(flat, axis=1, count=bits, bitorder="little")
    return torch.from_numpy(np.packbits(stream, bitorder="little"))


def unpack(packed: Tensor, bits: int, shape: tuple[int, ...]) -> Tensor:
    """Return the codes that ``pack`` has packed.

    Args:
        packed: uint8 (ceil(prod(shape) * bits / 8),).
        bits: 1 … 8, as given to ``pack``.
        shape: shape of the codes.

    Returns:
        uint8 codes of ``shape`` on the CPU.

    Raises:
        ValueError: ``bits`` is out of range.
        ResultError: ``packed`` is not the packing of codes of this shape.
    """
    _check_bits(bits)
    count = math.prod(shape)
    size = math.ceil(count * bits / 8)
    if packed.dtype != torch.uint8 or packed.shape != (size,):
        raise ResultError(
            f"{packed.dtype} {tuple(packed.shape)} cannot contain {bits}-bit codes of shape "
            f"{shape}: "
            f"{size} bytes expected",
            remedy="the file is damaged; quantize again or restore a copy",
        )
    stream = np.unpackbits(packed.cpu().numpy(), count=count * bits, bitorder="little")
    codes = np.packbits(stream.reshape(count, bits), axis=1, bitorder="little")
    return torch.from_numpy(codes).reshape(shape)


def _check_bits(bits: int) -> None:
    if not 1 <= bits <= 8:
        raise ValueError(f"{bits} bits: codes of 1 to 8 bits can be packed")
