"""Converts weights to the integers of a file: 8 bits for speed, or the trained bits for size."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import ml_dtypes
import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from dreamquant.errors import ExportError
from dreamquant.export.nodes import Floats
from dreamquant.quantization.affine import KERNEL_REACH, safe_reach
from dreamquant.quantization.student import QuantizedWeight

Integers = NDArray[np.int64]

_NUMPY = {
    ir.DataType.INT8: np.int8,
    ir.DataType.INT4: ml_dtypes.int4,
    ir.DataType.INT2: ml_dtypes.int2,
}


@dataclass(frozen=True)
class Codes:
    """An integer weight, with values ``(codes - zero_point) * scale`` along ``axis``.

    Attributes:
        codes: integers with the shape of the weight. For a transposed convolution with groups,
            output channels come first: (channels, inputs / groups, ...).
        zero_point: one value per channel.
        scale: one positive value per channel.
        axis: axis of the channels.
        dtype: type of the codes in the file.
        groups: groups of a transposed convolution; 1 for other layers.
    """

    codes: Integers
    zero_point: Integers
    scale: Floats
    axis: int
    dtype: ir.DataType
    groups: int = 1

    def arrays(self) -> tuple[NDArray[Any], NDArray[Any]]:
        """Codes and zero-points in the NumPy type for ``dtype``."""
        kind = _NUMPY[self.dtype]
        return self.codes.astype(kind), self.zero_point.astype(kind)

    def coarsened(self, least: Floats) -> Codes:
        """The same weight with scales of at least ``least``; codes must have no zero-points."""
        scale = np.maximum(self.scale, least)
        codes = self.codes * _wide(self.scale / scale, self.axis, self.codes.ndim)
        return replace(self, codes=np.round(codes).astype(np.int64), scale=scale)


def least_type(bits: int, *, two_bit: bool) -> ir.DataType:
    """The smallest ONNX type for weights of this number of bits.

    Args:
        bits: number of bits, 2 to 8.
        two_bit: whether INT2 may be used.
    """
    if bits == 2 and two_bit:
        return ir.DataType.INT2
    return ir.DataType.INT4 if bits <= 4 else ir.DataType.INT8


def boxed(weight: QuantizedWeight, factor: Floats | None, input_maximum: int, name: str) -> Codes:
    """Codes minus zero-points in int8, multiplied by an integer if there is room.

    Integer kernels take no zero-points of weights. The factor changes no value, because the scales
    are divided by it, but it makes the unit of the bias finer.

    Args:
        weight: the student's weight.
        factor: factor for each channel, positive or negative.
        input_maximum: largest possible code of the layer's input.
        name: name of the layer, for errors.

    Raises:
        ExportError: 8-bit weights have a zero-point, as in results of earlier versions.
    """
    codes, zero_point, scale = _parameters(weight, factor)
    axis, dimensions = _axis(weight), codes.ndim
    sign = np.sign(scale).astype(np.int64)
    codes = (codes - _wide(zero_point, axis, dimensions)) * _wide(sign, axis, dimensions)
    reach = np.abs(codes).max(tuple(d for d in range(dimensions) if d != axis))
    if reach.max() > KERNEL_REACH:
        raise ExportError(
            "8-bit weights have a zero-point, which integer kernels do not support",
            where=name,
            remedy="quantize again with this version",
        )
    times = np.maximum(safe_reach(input_maximum) // np.maximum(reach, 1), 1)
    return Codes(
        codes * _wide(times, axis, dimensions),
        np.zeros_like(zero_point),
        _magnitude(scale, weight) / times,
        axis,
        ir.DataType.INT8,
        weight.quantizer.groups,
    )


def small(weight: QuantizedWeight, factor: Floats | None, dtype: ir.DataType) -> Codes:
    """The trained codes with their zero-points.

    Args:
        weight: the student's weight.
        factor: factor for each channel, positive or negative.
        dtype: type of the codes in the file.
    """
    codes, zero_point, scale = _parameters(weight, factor)
    axis, dimensions = _axis(weight), codes.ndim
    # A negative scale mirrors the grid at -1/2, which maps the grid onto itself.
    codes = np.where(_wide(scale < 0, axis, dimensions), -1 - codes, codes)
    zero_point = np.where(scale < 0, -1 - zero_point, zero_point)
    nothing = _wide(scale == 0, axis, dimensions)
    codes = np.where(nothing, _wide(zero_point, axis, dimensions), codes)
    magnitude = _magnitude(scale, weight)
    return Codes(codes, zero_point, magnitude, axis, dtype, weight.quantizer.groups)


def _parameters(
    weight: QuantizedWeight, factor: Floats | None
) -> tuple[Integers, Integers, Floats]:
    quantizer = weight.quantizer
    scale = quantizer.scale.numpy().astype(np.float64)
    codes = quantizer.codes(weight.latent)
    if quantizer.groups > 1:
        inputs = len(codes) // quantizer.groups
        codes = quantizer.by_channel(codes).reshape(-1, inputs, *codes.shape[2:])
    return (
        codes.numpy().astype(np.int64),
        quantizer.zero_point.numpy().astype(np.int64),
        scale if factor is None else scale * factor,
    )


def _axis(weight: QuantizedWeight) -> int:
    """The axis of the output channels in the result of :func:`_parameters`."""
    return weight.quantizer.axis if weight.quantizer.groups == 1 else 0


def _magnitude(scale: Floats, weight: QuantizedWeight) -> Floats:
    """Positive scales; where batch norm multiplies by zero, the scale is arbitrary."""
    own = weight.quantizer.scale.numpy().astype(np.float64)
    magnitude: Floats = np.where(scale == 0, own, np.abs(scale))
    return magnitude


def _wide(values: NDArray[Any], axis: int, dimensions: int) -> NDArray[Any]:
    """One value per channel, in a shape that broadcasts with the weight."""
    return values.reshape([-1 if d == axis else 1 for d in range(dimensions)])
