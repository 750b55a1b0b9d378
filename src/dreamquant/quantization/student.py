"""The student: the user's own module with quantizers in place."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from dreamquant.quantization.biases import round_biases
from dreamquant.quantization.placement import Nowhere, Sites
from dreamquant.quantization.quantizers import ActivationQuantizer, WeightQuantizer

LAYER_TYPES = (nn.modules.conv._ConvNd, nn.Linear)


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

    def quantized_weight(self, layer: str) -> QuantizedWeight:
        """The weight of a layer from :meth:`quantized_layers`."""
        return cast(QuantizedWeight, _quantized_weight(self.network.get_submodule(layer)))

    def quantized_weights(self) -> dict[str, QuantizedWeight]:
        """All quantized weights by the name of their layer, of several the first that shares it."""
        owners = dict.fromkeys(self.quantized_layers().values())
        return {owner: self.quantized_weight(owner) for owner in owners}

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
        return not self.without_range()

    def without_range(self) -> list[str]:
        """Names of activation quantizers whose range was never set."""
        quantizers = self.activation_quantizers()
        return [name for name, quantizer in quantizers.items() if not quantizer.placed]

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
