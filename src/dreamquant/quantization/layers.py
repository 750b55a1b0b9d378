"""Quantizers as modules: they hold state, the maths is in ``affine``."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from dreamquant.networks.taps import Added
from dreamquant.quantization.affine import (
    KERNEL_REACH,
    Grid,
    affine_parameters,
    fake_quantize,
    quantize,
    unsigned_grid,
    weight_grid,
)
from dreamquant.quantization.biases import round_biases
from dreamquant.quantization.placement import Nowhere, Sites
from dreamquant.quantization.ranges import MovingRange, least_squares, per_channel_range, sample

LAYER_TYPES = (nn.modules.conv._ConvNd, nn.Linear)


class Quantizer(Added):
    """A grid with the scale and the zero-point in force.

    A scale that is learned is trained by its logarithm: it stays positive, and steps of an
    optimizer stretch it by so much, however large it is (Jain et al., MLSys 2020, appendix B).

    Args:
        bits: 2 to 8.
        grid: the codes to use.
        shape: of the scale.
        learned: whether the scale takes a gradient.

    Attributes:
        growth: logarithm of how far training has stretched the scale; ``None`` if it does not.
    """

    start: Tensor
    zero_point: Tensor
    placed: Tensor  # whether a range is in force

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
        """Put a scale and a zero-point in force; one that is learned starts from there."""
        self.start.copy_(scale.view_as(self.start))
        self.zero_point.copy_(zero_point.view_as(self.zero_point))
        self.placed.fill_(True)
        if self.growth is not None:
            self.growth.zero_()


class WeightQuantizer(Quantizer):
    """Per-channel weights on signed codes; a parametrization of a layer's ``weight``.

    While the student trains the ranges follow the latent weight (min-max per channel), or are
    trained themselves where ``learned``. Once fixed, the stored scale and zero-point hold, and
    weights that lie on the grid stay there bit for bit.

    Args:
        bits: 2 to 8.
        channels: output channels of the layer.
        axis: of the weight along which they lie (1 for transposed convolutions).
        groups: of a transposed convolution. Its weight (inputs, outputs / groups, ...) holds the
            output channels of all groups along two axes: rows of inputs belong to their group.
        learned: whether scales, at first those of the least squared error, take a gradient.
        reach: how far codes may lie from their zero-point, see ``weight_grid``; those of 8 bits
            are always symmetric about zero.

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
        scale, zero_point = self._in_force(weight)
        return self._wide(scale, weight), self._wide(zero_point, weight)

    def _in_force(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        return self._unlearned(weight) if self.follows else (self.scale, self.zero_point)

    def _wide(self, each: Tensor, weight: Tensor) -> Tensor:
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
        # A channel of zeros alone has no range, and affine_parameters would start it at its end.
        return scale, torch.zeros_like(zero_point) if self.symmetric else zero_point

    def by_channel(self, weight: Tensor) -> Tensor:
        """A weight, or its codes, as one row per output channel: (channels, values)."""
        if self.groups == 1:
            return weight.movedim(self.axis, 0).flatten(1)
        grouped = weight.reshape(self.groups, -1, *weight.shape[1:]).movedim(2, 1)
        return grouped.flatten(0, 1).flatten(1)

    def forward(self, weight: Tensor) -> Tensor:
        """The latent weight on its grid; where ranges follow it, its gradient is never clipped."""
        return fake_quantize(
            weight, *self.parameters_of(weight), self.grid, clipped_gradient=not self.follows
        )

    def rounded(self, weight: Tensor) -> Tensor:
        """``weight`` on the grid that it would have before anything is learned."""
        scale, zero_point = (self._wide(each, weight) for each in self._unlearned(weight))
        return fake_quantize(weight, scale, zero_point, self.grid, clipped_gradient=False)

    def fit(self, weight: Tensor) -> None:
        """Put the ranges in force that ``weight`` has before anything is learned."""
        self.place(*self._unlearned(weight))

    @torch.no_grad()
    def fix(self, weight: Tensor) -> None:
        """Store the ranges that ``weight`` has now, and keep them."""
        self.place(*self._in_force(weight))
        self.follows = False

    def hold(self, scale: Tensor, zero_point: Tensor) -> None:
        """Put given ranges in force, and keep them whatever becomes of the latent weight."""
        self.place(scale, zero_point)
        self.follows = False

    def get_extra_state(self) -> Tensor:
        """Whether ranges follow the weight: a later process must know."""
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
        """``x`` on the grid, same shape."""
        if self.observing:
            self.observe(x)
        return fake_quantize(
            x, self.scale, self.zero_point, self.grid, clipped_gradient=self.clipped_gradient
        )

    @torch.no_grad()
    def codes(self, x: Tensor) -> Tensor:
        """Integer codes of ``x``, int32."""
        return quantize(x, self.scale, self.zero_point, self.grid)

    @torch.no_grad()
    def observe(self, x: Tensor) -> None:
        """Move the range by one batch; cover it, or the share of it to start learning from."""
        self.range.update(x)
        low, high = self.range.read()
        if self.growth is None:
            self.place(*affine_parameters(low, high, self.grid))
        else:
            self.place(*least_squares(sample(x).to(low), low.view(1), high.view(1), self.grid))


def channel_layout(layer: nn.Module) -> tuple[int, int]:
    """Along which axis of a layer's weight its output channels lie, and in how many groups."""
    if not getattr(layer, "transposed", False):
        return 0, 1
    return 1, cast(int, layer.groups)


class QuantizedWeight(NamedTuple):
    """A layer's latent float weight and what puts it on a grid."""

    latent: nn.Parameter
    quantizer: WeightQuantizer


class Student(nn.Module):
    """A quantized network: the user's own module with quantizers in place.

    One without any quantizer is a student in full precision, of another architecture.

    Args:
        network: the module, its layers' weights and inputs quantized.
        sites: where activations are quantized beside inputs of layers.
        make: makes a quantizer of so many bits, on powers of two or on an affine grid.

    Attributes:
        network: see above.
        sites: see above. The quantizers of its groups are attributes of these names.
    """

    def __init__(
        self,
        network: nn.Module,
        sites: Sites | None = None,
        make: Callable[[int, bool], ActivationQuantizer] | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.sites = Nowhere() if sites is None else sites
        for group, bits in self.sites.bits.items():
            assert make is not None  # else there would be no bits
            powers = self.sites.logarithmic if group == "operands" else frozenset()
            made = [make(each, i in powers) for i, each in enumerate(bits)]
            self.add_module(group, nn.ModuleList(made))

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, classes) of normalised images (B, C, H, W)."""
        with self.sites.quantizing(self.groups()):
            return self.network(images)  # type: ignore[no-any-return]

    def groups(self) -> dict[str, nn.ModuleList]:
        """Quantizers at the sites, by group and in the order first used."""
        return {group: cast(nn.ModuleList, getattr(self, group)) for group in self.sites.bits}

    def input_quantizers(self) -> dict[str, ActivationQuantizer]:
        """Quantizers of what layers read, by the name of their layer."""
        found = {
            name: getattr(module, "input_quantizer", None)
            for name, module in self.network.named_modules()
        }
        return {name: q for name, q in found.items() if isinstance(q, ActivationQuantizer)}

    def activation_quantizers(self) -> dict[str, ActivationQuantizer]:
        """All activation quantizers by name."""
        return {
            name: module
            for name, module in self.named_modules()
            if isinstance(module, ActivationQuantizer)
        }

    def quantized_weights(self) -> dict[str, QuantizedWeight]:
        """All quantized weights by the name of their layer, of several the first that shares it."""
        return {
            owner: cast(QuantizedWeight, _quantized_weight(self.network.get_submodule(owner)))
            for owner in dict.fromkeys(self.quantized_layers().values())
        }

    def quantized_layers(self) -> dict[str, str]:
        """All layers whose weight is quantized, each with the first of those that share it."""
        owners: dict[int, str] = {}
        found = {}
        for name, module in self.network.named_modules():
            weight = _quantized_weight(module) if isinstance(module, LAYER_TYPES) else None
            if weight is not None:
                found[name] = owners.setdefault(id(weight.latent), name)
        return found

    def float_state(self) -> dict[str, Tensor]:
        """What stays in float, by name in the user's module: biases, batch norm, other layers."""
        quantized = tuple(
            f"{name}."
            for name, module in self.network.named_modules(remove_duplicate=False)
            if isinstance(module, ActivationQuantizer) or _holds_quantized_weight(module)
        )
        return {
            name: tensor
            for name, tensor in self.network.state_dict().items()
            if isinstance(tensor, Tensor) and not name.startswith(quantized)
        }

    def ranges_set(self) -> bool:
        """Whether every activation quantizer has a range."""
        return all(bool(quantizer.placed) for quantizer in self.activation_quantizers().values())

    def observe(self, observing: bool) -> None:
        """Let activation ranges follow the data, or freeze them where they are."""
        for quantizer in self.activation_quantizers().values():
            quantizer.observing = observing

    @torch.no_grad()
    def fix(self) -> None:
        """Freeze all ranges and put the latent weights on their grids: training is over.

        Where the scheme stores tensors as hardware does, biases become whole as there.
        """
        self.observe(False)
        for activation in self.activation_quantizers().values():
            activation.place(activation.scale, activation.zero_point)
        for latent, quantizer in self.quantized_weights().values():
            quantizer.fix(latent)
            latent.copy_(quantizer(latent))
        if self.sites.whole_biases is not None:
            round_biases(self.network, self._units(), self.sites.whole_biases)
        self.requires_grad_(False).eval()

    def _units(self) -> dict[str, Tensor]:
        """What one product of codes is worth, by layer and channel; for placement layer-input."""
        inputs = self.input_quantizers()
        return {
            name: quantizer.scale.double() * inputs[name].scale
            for name, (_, quantizer) in self.quantized_weights().items()
        }


def _quantized_weight(module: nn.Module) -> QuantizedWeight | None:
    if not parametrize.is_parametrized(module, "weight"):
        return None
    parametrizations = cast(parametrize.ParametrizationList, module.parametrizations["weight"])  # type: ignore[index]
    if not _holds_quantized_weight(parametrizations):
        return None
    latent = cast(nn.Parameter, parametrizations.original)
    return QuantizedWeight(latent, cast(WeightQuantizer, parametrizations[0]))


def _holds_quantized_weight(module: nn.Module) -> bool:
    return isinstance(module, parametrize.ParametrizationList) and isinstance(
        module[0], WeightQuantizer
    )
