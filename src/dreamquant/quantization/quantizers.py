"""Quantizers as modules: they hold the state, and ``affine`` has the arithmetic."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dreamquant.networks.module_outputs import Added
from dreamquant.quantization.affine import (
    KERNEL_REACH,
    Grid,
    affine_parameters,
    fake_quantize,
    quantize,
    unsigned_grid,
    weight_grid,
)
from dreamquant.quantization.ranges import MovingRange, least_squares, per_channel_range, sample

LAYER_WEIGHT = "_dreamquant_layer_weight"  # attribute of a weight that was rounded


class Quantizer(Added):
    """A grid with its present scale and zero-point.

    A learned scale is trained by its logarithm: it stays positive, and the steps of an optimizer
    are relative to its size (Jain et al., MLSys 2020, appendix B).

    Args:
        bits: 2 to 8.
        grid: the codes to use.
        shape: of the scale.
        learned: whether the scale takes a gradient.

    Attributes:
        growth: logarithm of the factor that training has applied to the scale; ``None`` if it does
            not learn.
    """

    start: Tensor
    zero_point: Tensor
    placed: Tensor  # whether a range has been set

    def __init__(self, bits: int, grid: Grid, shape: tuple[int, ...], *, learned: bool) -> None:
        super().__init__()
        self.bits, self.grid = bits, grid
        self.register_buffer("start", torch.ones(shape))
        self.register_buffer("zero_point", torch.zeros(shape, dtype=torch.int32))
        self.register_buffer("placed", torch.zeros((), dtype=torch.bool))
        self.growth = nn.Parameter(torch.zeros(shape)) if learned else None

    @property
    def scale(self) -> Tensor:
        """The scale in force."""
        return self.start if self.growth is None else self.start * self.growth.exp()

    @torch.no_grad()
    def place(self, scale: Tensor, zero_point: Tensor) -> None:
        """Set the scale and the zero-point; a learned scale starts from this value."""
        self.start.copy_(scale.view_as(self.start))
        self.zero_point.copy_(zero_point.view_as(self.zero_point))
        self.placed.fill_(True)
        if self.growth is not None:
            self.growth.zero_()


def as_layer_weight(rounded: Tensor) -> Tensor:
    """``rounded``, told from feature maps: a layer may compute with it before its product."""
    setattr(rounded, LAYER_WEIGHT, True)
    return rounded


class WeightQuantizer(Quantizer):
    """Per-channel weights on signed codes; a parametrization of a layer's ``weight``.

    During training the ranges are those of the latent weight (min-max per channel), or they are
    trained if ``learned``. After :meth:`fix` the stored scale and zero-point are used, and weights
    that lie on the grid keep their bits.

    Args:
        bits: 2 to 8.
        channels: output channels of the layer.
        axis: axis of the weight for output channels (1 for transposed convolutions).
        groups: of a transposed convolution. Its weight (inputs, outputs / groups, ...) has the
            output channels of all groups along two axes, and each row of inputs belongs to one
            group.
        learned: whether scales take a gradient; they start from those of the least squared error.
        reach: largest distance of a code from the zero-point, see ``weight_grid``; 8-bit codes are
            always symmetric about zero.

    Attributes:
        follows: whether ranges are those of the latent weight.
    """

    def __init__(
        self,
        bits: int,
        channels: int,
        axis: int,
        groups: int = 1,
        *,
        learned: bool = False,
        reach: int = KERNEL_REACH,
    ) -> None:
        super().__init__(bits, weight_grid(bits, reach), (channels,), learned=learned)
        self.axis, self.groups, self.follows = axis, groups, not learned
        self.symmetric = self.grid.qmin == -self.grid.qmax

    def parameters_of(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Scale and zero-point in force for ``weight``, shaped to broadcast against it."""
        scale, zero_point = self.in_force(weight)
        return self.wide(scale, weight), self.wide(zero_point, weight)

    def in_force(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Scale and zero-point of each output channel in force for ``weight``, (channels,)."""
        return self._unlearned(weight) if self.follows else (self.scale, self.zero_point)

    def wide(self, each: Tensor, weight: Tensor) -> Tensor:
        """A value of each output channel (channels,), shaped to broadcast against ``weight``."""
        shape = [1] * weight.dim()
        shape[self.axis] = -1
        if self.groups == 1:
            return each.view(shape)
        rows = each.view(self.groups, -1).repeat_interleave(len(weight) // self.groups, 0)
        return rows.view(len(weight), *shape[1:])

    def _unlearned(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        by_channel = self.by_channel(weight)
        low, high = per_channel_range(by_channel)
        if self.symmetric:
            high = torch.maximum(-low, high)
            low = -high
        if self.growth is None:
            scale, zero_point = affine_parameters(low, high, self.grid)
        else:
            scale, zero_point = least_squares(by_channel, low, high, self.grid)
        # affine_parameters gives a channel of zeros a zero-point at the grid's end; here it is 0.
        return scale, torch.zeros_like(zero_point) if self.symmetric else zero_point

    def by_channel(self, weight: Tensor) -> Tensor:
        """A weight, or its codes, as one row per output channel: (channels, values)."""
        return self.kernels(weight).flatten(1)

    def kernels(self, weight: Tensor) -> Tensor:
        """A weight, or its codes, with its output channels first: (channels, inputs, ...)."""
        if self.groups == 1:
            return weight.movedim(self.axis, 0)
        return weight.reshape(self.groups, -1, *weight.shape[1:]).movedim(2, 1).flatten(0, 1)

    def from_kernels(self, kernels: Tensor, weight: Tensor) -> Tensor:
        """The inverse of :meth:`kernels`, shaped like ``weight``."""
        if self.groups == 1:
            return kernels.movedim(0, self.axis)
        grouped = kernels.reshape(self.groups, -1, *kernels.shape[1:])
        return grouped.movedim(1, 2).reshape(weight.shape)

    def forward(self, weight: Tensor) -> Tensor:
        """The latent weight on its grid; where ranges follow it, its gradient is never clipped."""
        return as_layer_weight(
            fake_quantize(
                weight, *self.parameters_of(weight), self.grid, clipped_gradient=not self.follows
            )
        )

    def rounded(self, weight: Tensor) -> Tensor:
        """``weight`` on the grid that it has before training."""
        scale, zero_point = (self.wide(each, weight) for each in self._unlearned(weight))
        return as_layer_weight(
            fake_quantize(weight, scale, zero_point, self.grid, clipped_gradient=False)
        )

    def fit(self, weight: Tensor) -> None:
        """Set the ranges that ``weight`` has before training."""
        self.place(*self._unlearned(weight))

    @torch.no_grad()
    def fix(self, weight: Tensor) -> None:
        """Store the ranges that ``weight`` has now, and keep them."""
        self.place(*self.in_force(weight))
        self.follows = False

    def hold(self, scale: Tensor, zero_point: Tensor) -> None:
        """Set given ranges, and keep them when the latent weight changes."""
        self.place(scale, zero_point)
        self.follows = False

    def get_extra_state(self) -> Tensor:
        """Whether ranges are those of the latent weight, for a later process."""
        return torch.tensor(self.follows)

    def set_extra_state(self, state: Tensor) -> None:
        """Take over such a state."""
        self.follows = bool(state)

    @torch.no_grad()
    def codes(self, weight: Tensor) -> Tensor:
        """Integer codes of ``weight``, int32."""
        return quantize(weight, *self.parameters_of(weight), self.grid)


class ActivationQuantizer(Quantizer):
    """A tensor on unsigned codes with one static scale and zero-point.

    While ``observing``, each batch moves the range before it is quantized with it; afterwards the
    range is frozen. When ``learned``, the share of the range that rounds the latest batch with the
    least squared error takes its place, and its scale is then trained.

    Args:
        bits: 2 to 8.
        learned: whether the scale takes a gradient.
        clipped_gradient: whether clamped values pass none.
        momentum: of the moving range.

    Attributes:
        observing: whether the range follows what comes.
    """

    def __init__(
        self, bits: int, *, learned: bool, clipped_gradient: bool, momentum: float
    ) -> None:
        super().__init__(bits, unsigned_grid(bits), (), learned=learned)
        self.clipped_gradient = clipped_gradient
        self.range = MovingRange(momentum)
        self.observing = False

    def forward(self, x: Tensor) -> Tensor:
        """``x`` on the grid, of the same shape."""
        if self.observing:
            self.observe(x)
        return fake_quantize(
            x, self.scale, self.zero_point, self.grid, clipped_gradient=self.clipped_gradient
        )

    @torch.no_grad()
    def codes(self, x: Tensor) -> Tensor:
        """Integer codes of ``x``, int32."""
        return quantize(x, self.scale, self.zero_point, self.grid)

    def shifted(self, rounded: Tensor, steps: Tensor) -> Tensor:
        """The values of the codes that are ``steps`` above those of ``rounded``; same shape."""
        # `+` is not used, because the student would quantize it as a sum of the network.
        return torch.addcmul(rounded, steps, self.scale)

    @torch.no_grad()
    def observe(self, x: Tensor) -> None:
        """Move the range by one batch; cover it, or the share of it to start learning from."""
        self.range.update(x)
        low, high = self.range.read()
        if self.growth is None:
            self.place(*affine_parameters(low, high, self.grid))
        else:
            self.place(*least_squares(sample(x).to(low), low.view(1), high.view(1), self.grid))

    def on_grid(self, values: Tensor, given: Tensor) -> bool:
        """Whether values lie on its grid.

        Args:
            values: (N,).
            given: what it returned last.
        """
        return torch.equal(self(values), values)
