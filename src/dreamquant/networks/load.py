"""Loads a network by name. Weights are read as data only, and no input property is guessed."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from dreamquant.errors import NetworkError, WeightsError
from dreamquant.networks.checkpoints import Loaded, load_weights
from dreamquant.networks.choices import Kind
from dreamquant.networks.copying import own_copy
from dreamquant.networks.expected import unknown_input, with_options
from dreamquant.networks.feature_scale import with_scale
from dreamquant.networks.fit import fit
from dreamquant.networks.forms import plain_form, require_python
from dreamquant.networks.found import Boxes, Found
from dreamquant.networks.observed import observe, running
from dreamquant.networks.origins import find, find_again
from dreamquant.networks.reparametrized import bake
from dreamquant.networks.spec import InputSpec
from dreamquant.networks.taps import entering
from dreamquant.networks.weights import require_finite, state_sha256


@dataclass(frozen=True)
class Network:
    """A network that is ready to run.

    Attributes:
        name: the name given, such as ``torchvision:resnet18`` or ``path/to/file.py:factory``; the
            class name of a module given in memory.
        module: float32, on the CPU, in eval mode; its parameters need no gradient.
        input: the input that it expects; ``num_classes`` is measured.
        input_source: the origin of shape, mean and std.
        weights_sha256: see :func:`dreamquant.networks.weights.state_sha256`.
        source_sha256: hash of the factory's file; ``None`` for any other origin.
        weights: the file of the weights; ``None`` for weights of the zoo, the factory or the
            module.
        notes: descriptions of changes, such as removed wrappers and reparametrizations.
        boxes: converts its outputs to boxes (images, boxes, 6), if its file defines that; see
            :class:`dreamquant.evaluation.regression.Regression`.
    """

    name: str
    module: nn.Module
    input: InputSpec
    input_source: str
    weights_sha256: str
    source_sha256: str | None
    weights: str | None = None
    notes: tuple[str, ...] = ()
    boxes: Boxes | None = None


def load_network(
    name: str,
    *,
    weights: str | Path | None = None,
    shape: tuple[int, ...] | None = None,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
    num_classes: int | None = None,
    task: Kind | None = None,
    features: bool | None = None,
    bgr: bool = False,
) -> Network:
    """Load the network of that name.

    Args:
        name: ``torchvision:NAME``, ``timm:NAME``, ``pytorchcv:NAME``, ``FILE.onnx`` or
            ``FILE.py:FACTORY``. The factory is called, with literal arguments if there are any:
            ``FILE.py:Net(width=2)``. INPUT or SIZE, MEAN, STD, BGR and CLASSES of the file are
            used.
        weights: a file to load; ``None`` for the weights of the zoo or the factory.
        shape: shape of one input, such as (channels, height, width); ``None`` for the value of
            the zoo or the file. The same holds for ``mean`` and ``std``.
        mean: one value per channel, in units of [0, 1] pixels.
        std: like ``mean``.
        num_classes: required number of logits; a zoo's network for ``weights`` is built with it.
        task: task of the network; ``None`` to recognise it from the output.
        features: whether the input is not an image. ``None`` takes the file's value. Without one,
            an input is not an image if its rank is not three, or if it has one channel and is not
            square.
        bgr: the channels, ``mean`` and ``std`` are in the order blue, green, red. The file may say
            so too.

    Raises:
        NetworkError: the network cannot be found, built or run on such an input, its number of
            classes or its outputs are wrong, or its input is not fully known.
        WeightsError: the weights are unreadable, do not fit the network, or are not finite.
    """
    found, source_sha256 = find(
        name, pretrained=weights is None, num_classes=num_classes, shape=shape
    )
    found = with_options(found, {"shape": shape, "mean": mean, "std": std})
    found = found if features is None else replace(found, features=features)
    found = replace(found, bgr=bgr or found.bgr)
    module, notes = plain_form(found.module, name)
    loaded = Loaded((), ())
    if weights is not None:
        loaded = load_weights(module, Path(weights))
        require_finite(module, str(weights))
    notes = (*found.notes, *notes, *loaded.notes, *bake(module))
    if found.shape is None or found.mean is None or found.std is None:
        raise unknown_input(found, name)
    with running(found.shape, name):
        _require_idle(module, loaded.absent, found.shape)
        notes += fit(module, found.shape, task)
    spec, seen = _input_spec(module, found, name, task, num_classes or found.num_classes)
    network = _network(name, module, spec, found.source, source_sha256)
    return replace(
        network,
        weights=None if weights is None else str(weights),
        notes=(*notes, *seen),
        boxes=found.boxes,
    )


def wrap_module(module: nn.Module, spec: InputSpec) -> Network:
    """A network given in memory. ``module`` is copied and does not change.

    Raises:
        NetworkError: the module is TorchScript, cannot be copied or run on such an input, or its
                number of classes differs from ``spec``.
        WeightsError: its weights are not finite.
    """
    name = type(module).__name__
    own, notes = ready_copy(module, spec)
    seen = observe(own, spec.shape, name, task=spec.task, classes=spec.num_classes)
    spec = replace(spec, outputs=seen.outputs, features=spec.features or len(spec.shape) != 3)
    spec, scale = with_scale(spec, own)
    network = _network(name, own, spec, "the InputSpec given", None)
    return replace(network, notes=(*notes, *scale))


def ready_copy(module: nn.Module, spec: InputSpec) -> tuple[nn.Module, tuple[str, ...]]:
    """A copy of ``module`` as in :attr:`Network.module`, and descriptions of the changes.

    Raises:
        NetworkError: it is TorchScript, or cannot be copied or run on such an input.
    """
    name = type(module).__name__
    require_python(module, name)
    return _ready(own_copy(module), name, spec.shape, spec.task)


def untrained(name: str, teacher: Network, seed: int) -> Network:
    """An architecture with random weights, with the input and the classes of ``teacher``.

    Args:
        name: as for :func:`load_network`; pretrained weights of a zoo are not downloaded.
        teacher: the network whose input and classes it gets.
        seed: seed of its initial weights.

    Raises:
        NetworkError: the network cannot be found, built or run on such an input, or its number
                of classes differs.
        WeightsError: its weights are not finite.
    """
    spec = teacher.input
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        found, source_sha256 = find(name, pretrained=False, num_classes=spec.num_classes)
    module, notes = _ready(found.module, name, spec.shape, spec.task)
    seen = observe(module, spec.shape, name, task=spec.task)
    if seen.classes != spec.num_classes:
        raise NetworkError(
            f"{name} has {seen.classes} classes, and its teacher has {spec.num_classes}",
            where="--student",
            remedy="give a network with as many classes as the teacher",
        )
    network = _network(name, module, spec, f"its teacher, {teacher.name}", source_sha256)
    return replace(network, notes=notes)


def inheriting(network: Network, source: Network) -> Network:
    """``network`` with those tensors of ``source`` that have the same name and shape.

    Raises:
        NetworkError: there is no such tensor.
    """
    own = network.module.state_dict()
    shared = {
        name: tensor
        for name, tensor in source.module.state_dict().items()
        # The batch counter that every batch norm has is no weight.
        if tensor.dim() and name in own and own[name].shape == tensor.shape
    }
    if not shared:
        raise NetworkError(
            f"{network.name} and {source.name} have no tensor of the same name and shape",
            where="--inherit",
            remedy="leave the option out: the student then starts from random weights",
        )
    module = copy.deepcopy(network.module)
    module.load_state_dict(own | shared)
    return replace(network, module=module, weights_sha256=state_sha256(module))


def build_module(
    name: str, spec: InputSpec, source_sha256: str | None = None, *, pretrained: bool = False
) -> nn.Module:
    """Build the architecture of that name, for a saved result or for weights.

    Args:
        name: as :attr:`Network.name`, from a zoo or a file.
        spec: its input and number of classes.
        source_sha256: hash of the factory's file when the result was saved.
        pretrained: load the weights of the zoo; a factory decides about its weights itself.

    Returns:
        The module as in :attr:`Network.module`.

    Raises:
        NetworkError: the network cannot be found, built or run, or the factory's file has
                changed since the result was saved; then none of its code has run.
    """
    found = find_again(name, spec, source_sha256, pretrained=pretrained)
    return _ready(found.module, name, spec.shape, spec.task)[0]


def _input_spec(
    module: nn.Module, found: Found, name: str, task: Kind | None, num_classes: int | None
) -> tuple[InputSpec, tuple[str, ...]]:
    assert found.shape is not None
    assert found.mean is not None
    assert found.std is not None
    seen = observe(module, found.shape, name, task=task, classes=num_classes)
    features, notes = _features(found)
    spec = InputSpec(
        shape=found.shape,
        mean=found.mean,
        std=found.std,
        num_classes=seen.classes,
        class_names=found.class_names if len(found.class_names) == seen.classes else (),
        resize=found.resize,
        task=seen.task,
        outputs=found.outputs or seen.outputs,
        features=features,
        bgr=found.bgr,
        entry=found.entry or "images",
        form=found.form,
    )
    spec, scale = with_scale(spec, module)
    return spec, (*seen.notes, *notes, *scale)


def _features(found: Found) -> tuple[bool, tuple[str, ...]]:
    """Whether the input is not an image, according to its origin or its shape."""
    shape = found.shape or ()
    if found.features is not None or len(shape) != 3:
        return bool(found.features) or len(shape) != 3, ()
    if shape[0] > 1 or shape[1] == shape[2]:
        return False, ()
    return True, (
        f"an input of {' x '.join(map(str, shape))} is treated as features, not as an image "
        "(set FEATURES = False in the network's file, or give --pixels, if it is an image)",
    )


def _ready(
    module: nn.Module, name: str, shape: tuple[int, ...], task: Kind
) -> tuple[nn.Module, tuple[str, ...]]:
    module, notes = plain_form(module, name)
    notes += bake(module)
    with running(shape, name):
        return module, notes + fit(module, shape, task)


def _require_idle(module: nn.Module, absent: tuple[str, ...], shape: tuple[int, ...]) -> None:
    """Refuse a network that runs a part whose weights are not in the file."""
    parts = [module.get_submodule(name) for name in absent]
    executed: list[nn.Module] = []
    with torch.no_grad(), entering(parts, lambda part, _: executed.append(part)):
        if parts:
            module(torch.zeros(2, *shape))
    if executed:
        raise WeightsError(
            f"the network runs {', '.join(absent)}, and the file has no weights for it",
            remedy="give the weights of the whole network, or build it without that part",
        )


def _network(
    name: str, module: nn.Module, spec: InputSpec, input_source: str, source_sha256: str | None
) -> Network:
    require_finite(module, name)
    return Network(name, module, spec, input_source, state_sha256(module), source_sha256)
