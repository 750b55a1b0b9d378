"""Preparations: changes to the float copy of a network before quantizers are inserted."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from dreamquant.errors import NetworkError
from dreamquant.networks.outputs import as_one
from dreamquant.networks.probe import batch_norms

_TOLERANCE = 1e-5  # of the largest output: what float32 may differ by


class Preparation(ABC):
    """A frozen dataclass of numbers that changes a float network.

    Attributes:
        structural: whether it changes which modules exist. Such a preparation is recorded, and
            repeated when a result is opened; changes of values are stored in the tensors.
        exact: whether the network computes the same function afterwards, which is then checked.
    """

    structural: ClassVar[bool] = False
    exact: ClassVar[bool] = True

    @abstractmethod
    def apply(self, network: nn.Module, example: Tensor) -> None:
        """Change the network in place.

        Args:
            network: a copy, in eval mode.
            example: normalised images (B, C, H, W), for forward passes that observe the network.
        """


class FoldedNorm(nn.Identity):
    """Replaces a folded batch norm, and keeps its knowledge of the output.

    Attributes:
        mean: (F,), mean of each output channel: the batch norm's shift.
        deviation: (F,), deviation of each output channel: the batch norm's scale, positive.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, mean: Tensor, deviation: Tensor) -> None:
        super().__init__()
        # Not persistent: a student's file holds only tensors that it computes with.
        self.register_buffer("mean", mean.detach().clone(), persistent=False)
        self.register_buffer("deviation", deviation.detach().clone(), persistent=False)


@dataclass(frozen=True)
class FoldBatchNorms(Preparation):
    """Folds batch norms into the layer before them, where they are its only reader."""

    structural: ClassVar[bool] = True

    def apply(self, network: nn.Module, example: Tensor) -> None:
        """Fold each of them; others stay, and coverage lists them as float."""
        for norm_name, layer_name in foldable(network, example).items():
            norm = cast(_BatchNorm, network.get_submodule(norm_name))
            _fold(network.get_submodule(layer_name), norm)
            replace_module(network, norm_name, FoldedNorm(*_known(norm)))


def foldable(network: nn.Module, example: Tensor) -> dict[str, str]:
    """Names of batch norms that are the only reader of one layer's output, each with the layer."""
    from dreamquant.quantization.stored import survey

    layers = [
        name
        for name, module in network.named_modules()
        if isinstance(module, (nn.modules.conv._ConvNd, nn.Linear))
    ]
    norms = dict(batch_norms(network))
    followed = survey(network, layers, example).norms
    return {
        norm: layer
        for norm, layer in followed.items()
        if norm in norms and list(followed.values()).count(layer) == 1
    }


def _fold(layer: nn.Module, norm: _BatchNorm) -> None:
    weight, bias = cast(nn.Parameter, layer.weight), cast("nn.Parameter | None", layer.bias)
    mean, var = cast(Tensor, norm.running_mean), cast(Tensor, norm.running_var)
    shift, scale = _affine(norm)
    factor = scale / (var + norm.eps).sqrt()
    with torch.no_grad():
        weight.copy_(_times(weight, factor, layer))
        start = torch.zeros_like(mean) if bias is None else bias
        folded = (start - mean) * factor + shift
    layer.bias = nn.Parameter(folded, requires_grad=weight.requires_grad)


def _times(weight: Tensor, factor: Tensor, layer: nn.Module) -> Tensor:
    """A weight with each output channel multiplied."""
    if not getattr(layer, "transposed", False):
        return weight * factor.view(-1, *[1] * (weight.dim() - 1))
    groups = cast(int, layer.groups)
    # (in, out / groups, ...): the inputs of a group meet the outputs of that group alone.
    parts = weight.view(groups, -1, *weight.shape[1:])
    return (parts * factor.view(groups, 1, -1, *[1] * (weight.dim() - 2))).view(weight.shape)


def _affine(norm: _BatchNorm) -> tuple[Tensor, Tensor]:
    mean = cast(Tensor, norm.running_mean)
    if norm.affine:
        return norm.bias, norm.weight
    return torch.zeros_like(mean), torch.ones_like(mean)


def _known(norm: _BatchNorm) -> tuple[Tensor, Tensor]:
    shift, scale = _affine(norm)
    return shift, scale.abs()


@dataclass(frozen=True)
class GiveBiases(Preparation):
    """Layers without a bias get one of zeros, which later steps change.

    It is a preparation of its own so that it is repeated when a result is opened.
    """

    structural: ClassVar[bool] = True

    def apply(self, network: nn.Module, example: Tensor) -> None:
        """Give biases to all convolution and linear modules."""
        for layer in network.modules():
            if isinstance(layer, (nn.modules.conv._ConvNd, nn.Linear)) and layer.bias is None:
                channels = (
                    layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels
                )
                zeros = layer.weight.new_zeros(channels)
                layer.bias = nn.Parameter(zeros, requires_grad=layer.weight.requires_grad)


@dataclass(frozen=True)
class ReluForRelu6(Preparation):
    """ReLU6 modules become ReLUs, which scaling passes through (Nagel et al., section 5.1.1)."""

    structural: ClassVar[bool] = True
    exact: ClassVar[bool] = False

    def apply(self, network: nn.Module, example: Tensor) -> None:
        """Replace each module; a ReLU6 that is called as a function stays."""
        for name, module in list(network.named_modules()):
            if isinstance(module, nn.ReLU6):
                replace_module(network, name, nn.ReLU())


def replace_module(network: nn.Module, name: str, module: nn.Module) -> None:
    """Put a module into a network in place of the one of that name."""
    parent, _, child = name.rpartition(".")
    setattr(network.get_submodule(parent), child, module)


def prepared(network: nn.Module, preparations: Sequence[Preparation], example: Tensor) -> nn.Module:
    """A copy of a network with preparations done; the network itself if there is nothing to do.

    Raises:
        NetworkError: a preparation that keeps what the network computes did not.
    """
    if not preparations:
        return network
    own = copy.deepcopy(network)
    for preparation in preparations:
        with torch.no_grad():
            before = own(example)
            preparation.apply(own, example)
            if preparation.exact:
                _require_equal(own(example), before, preparation)
    return own.requires_grad_(False)


def _require_equal(after: object, before: object, preparation: Preparation) -> None:
    after, before = as_one(after), as_one(before)
    deviation = (after - before).abs().max() / before.abs().max().clamp(min=1e-12)
    if deviation > _TOLERANCE:
        raise NetworkError(
            f"{type(preparation).__name__} changes what the network computes, by "
            f"{deviation:.1e} of its largest output",
            remedy="choose a method without it: `dreamquant methods` says what each one prepares",
        )


def _structures() -> dict[str, Preparation]:
    from dreamquant.quantization.clips import ClipPerChannel

    known = (FoldBatchNorms(), GiveBiases(), ReluForRelu6(), ClipPerChannel())
    return {type(part).__name__: part for part in known}


def structures(preparations: Iterable[Preparation]) -> list[str]:
    """Names of those that a result must do again when it is opened."""
    return [type(part).__name__ for part in preparations if part.structural]


def restructured(network: nn.Module, names: Iterable[str], example: Tensor) -> nn.Module:
    """A copy of a network with the structure that a student on record has.

    Raises:
        KeyError: a name is not known.
    """
    names = list(names)
    if not names:
        return network
    own, known = copy.deepcopy(network), _structures()
    with torch.no_grad():
        for name in names:
            known[name].apply(own, example)
    return own
