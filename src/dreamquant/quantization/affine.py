"""Affine quantization as pure tensor maths: codes, scales, zero-points, gradients.

A real tensor x is represented by integer codes q on a grid ``qmin .. qmax``::

    q = clamp(round(x / scale) + zero_point, qmin, qmax)        round half to even
    x ≈ scale * (q - zero_point)

``zero_point`` is an integer inside the grid, so zero is always represented exactly (padding, ReLU)
and every quantizer here can be exported as integers plus one float per channel or tensor.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

# The smallest scale whose reciprocal is still finite in float32.
SMALLEST_SCALE = torch.finfo(torch.float32).tiny

# Integer kernels take weights as 8-bit integers without a zero-point. Of less than 8 bits, the
# differences between code and zero-point still fit into these.
KERNEL_REACH = 127
_LARGEST_PAIR = 2**15 - 1


class Grid(NamedTuple):
    """The integers a code may take, both ends included."""

    qmin: int
    qmax: int

    @property
    def levels(self) -> int:
        """Number of steps between the ends, ``2**bits - 1``."""
        return self.qmax - self.qmin


def signed_grid(bits: int) -> Grid:
    """Codes of weights: ``-2**(bits-1) .. 2**(bits-1) - 1``."""
    return Grid(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


def weight_grid(bits: int, reach: int) -> Grid:
    """Codes of weights that lie at most ``reach`` from their zero-point.

    Where any zero-point does, the codes are those of :func:`signed_grid`. Else they are symmetric
    about a zero-point of zero, as many of them as fit.

    Args:
        bits: 2 to 8.
        reach: at most ``KERNEL_REACH``.
    """
    signed = signed_grid(bits)
    if signed.levels <= reach:
        return signed
    end = min(signed.qmax, reach)
    return Grid(-end, end)


def safe_reach(largest: int) -> int:
    """How far weights may lie from their zero-point so that no kernel on x86 saturates.

    Without VNNI, kernels multiply 8-bit activations and weights, add the products in pairs, and
    hold each sum in 16 bits. Products of this reach fit, whichever of them are paired.

    Args:
        largest: code of the activations that the weights meet.
    """
    return min(KERNEL_REACH, _LARGEST_PAIR // (2 * largest))


def unsigned_grid(bits: int) -> Grid:
    """Codes of activations: ``0 .. 2**bits - 1``."""
    return Grid(0, 2**bits - 1)


def affine_parameters(low: Tensor, high: Tensor, grid: Grid) -> tuple[Tensor, Tensor]:
    """Scale and zero-point that cover ``[low, high]``, widened to contain zero.

    Args:
        low: smallest values, any shape (one per channel, or a scalar).
        high: largest values, same shape, ``high >= low``.
        grid: the codes to use.

    Returns:
        ``(scale, zero_point)`` of the same shape: positive floats, and integers (as int32)
        inside the grid. On a symmetric grid a range of width zero has zero-point zero.
    """
    low, high = low.clamp(max=0), high.clamp(min=0)
    # Divided before the subtraction: high - low may overflow, the step may not.
    scale = (high / grid.levels - low / grid.levels).clamp(min=SMALLEST_SCALE)
    zero_point = (grid.qmin - low / scale).round().clamp(grid.qmin, grid.qmax)
    if grid.qmin == -grid.qmax:
        zero_point = torch.where(high > low, zero_point, 0)
    return scale, zero_point.to(torch.int32)


def quantize(x: Tensor, scale: Tensor, zero_point: Tensor, grid: Grid) -> Tensor:
    """Integer codes of ``x`` (int32, same shape); ``scale`` and ``zero_point`` broadcast."""
    return _codes(x, scale, zero_point, grid).to(torch.int32)


def dequantize(codes: Tensor, scale: Tensor, zero_point: Tensor) -> Tensor:
    """The real values of integer codes; ``scale`` and ``zero_point`` broadcast."""
    return (codes - zero_point) * scale


def fake_quantize(
    x: Tensor,
    scale: Tensor,
    zero_point: Tensor,
    grid: Grid,
    *,
    clipped_gradient: bool,
) -> Tensor:
    """The values of ``x`` on the grid, ``dequantize(quantize(x))``, with a gradient.

    To ``x`` the gradient passes unchanged (straight-through estimator, Bengio et al. 2013) or,
    with ``clipped_gradient``, only where the code was not clamped. To ``scale``, where it requires
    a gradient, flows that of learned step size quantization (Esser et al., ICLR 2020, eq. 3)::

        d x̂ / d scale = (x̂ - x) / scale      inside the range
                        x̂ / scale            where clamped

    Args:
        x: real values, any shape.
        scale: positive, broadcastable to ``x``.
        zero_point: integers, broadcastable to ``x``.
        grid: the codes to use.
        clipped_gradient: whether clamped values pass no gradient to ``x``.

    Returns:
        A tensor shaped like ``x``.
    """
    if torch.is_grad_enabled() and (x.requires_grad or scale.requires_grad):
        result: Tensor = _FakeQuantize.apply(x, scale, zero_point, grid, clipped_gradient)
        return result
    return (_codes(x, scale, zero_point, grid) - zero_point).mul_(scale)


def _codes(x: Tensor, scale: Tensor, zero_point: Tensor, grid: Grid) -> Tensor:
    # Kept in float: integers this small are exact, and NaN stays visible instead of becoming a
    # code, as it would in the cast of PyTorch's fused kernel.
    return (x / scale).round_().add_(zero_point).clamp_(grid.qmin, grid.qmax)


class _FakeQuantize(torch.autograd.Function):
    # Written in vectorised elementwise passes: on CPUs PyTorch's fused fake-quantize kernel is a
    # scalar loop, measured 2 to 8 times slower (benchmarks/fake_quantize.py).

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        scale: Tensor,
        zero_point: Tensor,
        grid: Grid,
        clipped_gradient: bool,
    ) -> Tensor:
        rounded = (x / scale).round_().add_(zero_point)
        out = rounded.clamp(grid.qmin, grid.qmax).sub_(zero_point).mul_(scale)
        ctx.grid, ctx.clipped = grid, clipped_gradient
        learned = (x, scale, out) if scale.requires_grad else ()
        ctx.save_for_backward(*((rounded,) if clipped_gradient or learned else ()), *learned)
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = gradients
        if not ctx.saved_tensors:
            return grad, None, None, None, None
        rounded, *learned = ctx.saved_tensors
        # The derivative of a clamp in one pass; codes are whole, so halves decide every case.
        inside = torch.ops.aten.hardtanh_backward(
            grad, rounded, ctx.grid.qmin - 0.5, ctx.grid.qmax + 0.5
        )
        grad_scale = None
        if ctx.needs_input_grad[1]:
            x, scale, out = learned
            slope = (grad * out).addcmul_(inside, x, value=-1).sum_to_size(scale.shape)
            grad_scale = slope.div_(scale)
        return inside if ctx.clipped else grad, grad_scale, None, None, None
