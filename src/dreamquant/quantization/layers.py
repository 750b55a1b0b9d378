"""Quantizers as modules: they hold state, the maths is in ``affine``."""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.overrides import TorchFunctionMode

from dreamquant.errors import NetworkError
from dreamquant.networks.taps import is_relu
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
from dreamquant.quantization.ranges import MovingRange, least_squares, per_channel_range, sample
from dreamquant.quantization.stored import StoredTensors, Survey


class Quantizer(nn.Module):
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
        *,
        learned: bool = False,
        reach: int = KERNEL_REACH,
    ) -> None:
        super().__init__(bits, weight_grid(bits, reach), (channels,), learned=learned)
        self.axis, self.follows = axis, not learned
        self.symmetric = self.grid.qmin == -self.grid.qmax

    def parameters_of(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Scale and zero-point in force for ``weight``, shaped to broadcast against it."""
        scale, zero_point = (
            self._unlearned(weight) if self.follows else (self.scale, self.zero_point)
        )
        return self._wide(scale, weight), self._wide(zero_point, weight)

    def _wide(self, each: Tensor, weight: Tensor) -> Tensor:
        shape = [1] * weight.dim()
        shape[self.axis] = -1
        return each.view(shape)

    def _unlearned(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        low, high = per_channel_range(weight, self.axis)
        if self.symmetric:
            high = torch.maximum(-low, high)
            low = -high
        if self.growth is None:
            scale, zero_point = affine_parameters(low, high, self.grid)
        else:
            rows = weight.movedim(self.axis, 0).flatten(1)
            scale, zero_point = least_squares(rows, low, high, self.grid)
        # A channel of zeros alone has no range, and affine_parameters would start it at its end.
        return scale, torch.zeros_like(zero_point) if self.symmetric else zero_point

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
        scale, zero_point = self.parameters_of(weight)
        self.place(scale, zero_point)
        self.follows = False

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


class ReluOutputs(TorchFunctionMode):
    """Quantizes what leaves the i-th ReLU of a forward pass with the i-th quantizer.

    Calls are counted rather than modules, because networks reuse one ReLU module in several
    places, or call the function without any module at all.

    Args:
        quantizers: one per ReLU in the order executed.

    Raises:
        NetworkError: the forward pass runs another number of ReLUs than the quantizers were
            made for.
    """

    def __init__(self, quantizers: nn.ModuleList) -> None:
        super().__init__()
        self.quantizers = quantizers
        self.calls = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run ``func``; if it is a ReLU, quantize its result."""
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if not is_relu(func, args, kwargs):
            return result
        if self.calls == len(self.quantizers):
            raise self._miscounted()
        self.calls += 1
        return self.quantizers[self.calls - 1](result)

    def __exit__(self, *exception: Any) -> None:
        """Check that every quantizer was used."""
        super().__exit__(*exception)  # type: ignore[no-untyped-call]
        if exception[0] is None and self.calls != len(self.quantizers):
            raise self._miscounted()

    def _miscounted(self) -> NetworkError:
        return NetworkError(
            f"a forward pass ran another number of ReLUs than the {len(self.quantizers)} quantized",
            where="placement relu-output",
            remedy="use --placement layer-input for networks whose forward pass varies",
        )


class QuantizedWeight(NamedTuple):
    """A layer's latent float weight and what puts it on a grid."""

    latent: nn.Parameter
    quantizer: WeightQuantizer


class Student(nn.Module):
    """A quantized network: the user's own module with quantizers in place.

    One without any quantizer is a student in full precision, of another architecture.

    Attributes:
        network: the module, its layers' weights and inputs quantized.
        relu_outputs: quantizers of ReLU outputs in the order executed, for that placement.
        stored: quantizers of what several operations read, where the scheme has them.
        survey: where these are read.
    """

    def __init__(
        self,
        network: nn.Module,
        relu_outputs: nn.ModuleList,
        stored: nn.ModuleList | None = None,
        survey: Survey | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.relu_outputs = relu_outputs
        self.stored = nn.ModuleList() if stored is None else stored
        self.survey = survey

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, classes) of normalised images (B, C, H, W)."""
        if self.survey is not None:
            with StoredTensors(self.stored, self.survey.reads):
                return self.network(images)  # type: ignore[no-any-return]
        if not self.relu_outputs:
            return self.network(images)  # type: ignore[no-any-return]
        with ReluOutputs(self.relu_outputs):
            return self.network(images)  # type: ignore[no-any-return]

    def activation_quantizers(self) -> dict[str, ActivationQuantizer]:
        """All activation quantizers by name."""
        return {
            name: module
            for name, module in self.named_modules()
            if isinstance(module, ActivationQuantizer)
        }

    def quantized_weights(self) -> dict[str, QuantizedWeight]:
        """All quantized weights by the name of their layer."""
        found = {name: _quantized_weight(module) for name, module in self.network.named_modules()}
        return {name: weight for name, weight in found.items() if weight is not None}

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
        if self.survey is not None:
            round_biases(self.network, self._units(), self.survey.norms)
        self.requires_grad_(False).eval()

    def _units(self) -> dict[str, Tensor]:
        """What one product of codes is worth, by layer and channel; for placement layer-input."""
        return {
            name: quantizer.scale.double()
            * cast(ActivationQuantizer, self.network.get_submodule(name).input_quantizer).scale
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
