"""A network by its name, with weights that are data only and an input that nothing guesses."""

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
    """A teacher, ready to run.

    Attributes:
        name: as given: ``torchvision:resnet18``, ``path/to/file.py:factory``; the class name of a
            module given in memory.
        module: float32, on the CPU, in eval mode, its parameters without gradient.
        input: what it expects; ``num_classes`` is measured.
        input_source: where shape, mean and std came from.
        weights_sha256: see :func:`dreamquant.networks.weights.state_sha256`.
        source_sha256: of the factory's file; ``None`` for any other origin.
        weights: the file they were read from; ``None`` for the zoo's, the factory's, or a
            module's own.
        notes: what was changed to take it in, in words: reparametrizations baked in, wrappers
            taken off, and so on.
        boxes: that its file defines: makes boxes (images, boxes, 6) of its outputs, see
            :class:`dreamquant.evaluation.tensors.Tensors`.
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
    """The network of that name.

    Args:
        name: ``torchvision:NAME``, ``timm:NAME``, ``pytorchcv:NAME``, ``FILE.onnx`` or
            ``FILE.py:FACTORY``, whose factory is called, with literal arguments where given:
            ``FILE.py:Net(width=2)``.
            What the file defines as INPUT or SIZE, MEAN, STD, BGR and CLASSES is taken from there.
        weights: a file to load; ``None`` for a zoo's pretrained weights or the factory's own.
        shape: of one input, such as channels, height, width; ``None`` for what the zoo or the
            file says, as for the next two.
        mean: one per channel, in units of [0, 1] pixels.
        std: like ``mean``.
        num_classes: width the logits must have; a zoo's network for ``weights`` is built with it.
        task: what its outputs are for; ``None`` for what they look made for.
        features: whether the input holds no pixels; ``None`` for what the file says or, of an input
            of another rank than three or with one channel that is not square, that it does not.
        bgr: its channels are blue, green, red, and so are ``mean`` and ``std``; it is so too where
            the file says it.

    Raises:
        NetworkError: the network cannot be found, built or run on such an input, has another
            number of classes or other outputs, or its input is not fully known.
        WeightsError: the weights are unreadable, of another network, or not finite.
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
    """A network given in memory; ``module`` itself stays as it is, for a copy is taken.

    Raises:
        NetworkError: the module is TorchScript, cannot be copied or run on such an input, or has
            another number of classes than ``spec``.
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
    """A copy of ``module`` as in :attr:`Network.module`, and what was changed, in words.

    Raises:
        NetworkError: it is TorchScript, or cannot be copied or run on such an input.
    """
    name = type(module).__name__
    require_python(module, name)
    return _ready(own_copy(module), name, spec.shape, spec.task)


def untrained(name: str, teacher: Network, seed: int) -> Network:
    """An architecture with fresh weights that could do what ``teacher`` does.

    Args:
        name: as for :func:`load_network`; a zoo's pretrained weights are not fetched.
        teacher: whose input and classes it is to have.
        seed: of its initial weights.

    Raises:
        NetworkError: the network cannot be found, built or run on such an input, or has another
            number of classes.
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
            f"{name} has {seen.classes} classes, its teacher {spec.num_classes}",
            where="--student",
            remedy="give a network of as many classes",
        )
    network = _network(name, module, spec, f"its teacher, {teacher.name}", source_sha256)
    return replace(network, notes=notes)


def inheriting(network: Network, source: Network) -> Network:
    """``network`` with the tensors of ``source`` wherever name and shape are equal.

    Raises:
        NetworkError: no tensor fits.
    """
    own = network.module.state_dict()
    shared = {
        name: tensor
        for name, tensor in source.module.state_dict().items()
        # Counters of batches are no weights, and every batch norm has one.
        if tensor.dim() and name in own and own[name].shape == tensor.shape
    }
    if not shared:
        raise NetworkError(
            f"{network.name} has no tensor of the name and shape of one of {source.name}",
            where="--inherit",
            remedy="leave it out: the student then starts from fresh weights",
        )
    module = copy.deepcopy(network.module)
    module.load_state_dict(own | shared)
    return replace(network, module=module, weights_sha256=state_sha256(module))


def build_module(
    name: str, spec: InputSpec, source_sha256: str | None = None, *, pretrained: bool = False
) -> nn.Module:
    """The architecture of that name, to load a saved result or weights into.

    Args:
        name: as :attr:`Network.name`, of a zoo or a file.
        spec: its input and number of classes.
        source_sha256: of the factory's file when the result was saved.
        pretrained: with the weights of the zoo; a factory's are always its own.

    Returns:
        The module as in :attr:`Network.module`.

    Raises:
        NetworkError: the network cannot be found, built or run, or the factory's file is not the
            one the result was made with; then no code of it has run.
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
    """Whether the input holds no pixels: as its origin says, or by its shape."""
    shape = found.shape or ()
    if found.features is not None or len(shape) != 3:
        return bool(found.features) or len(shape) != 3, ()
    if shape[0] > 1 or shape[1] == shape[2]:
        return False, ()
    return True, (
        f"an input of {' x '.join(map(str, shape))} is taken for features that are no pixels "
        "(FEATURES = False in the network's file, or --pixels, says otherwise)",
    )


def _ready(
    module: nn.Module, name: str, shape: tuple[int, ...], task: Kind
) -> tuple[nn.Module, tuple[str, ...]]:
    module, notes = plain_form(module, name)
    notes += bake(module)
    with running(shape, name):
        return module, notes + fit(module, shape, task)


def _require_idle(module: nn.Module, absent: tuple[str, ...], shape: tuple[int, ...]) -> None:
    """Refuse a network that runs a part whose weights the file lacks."""
    parts = [module.get_submodule(name) for name in absent]
    executed: list[nn.Module] = []
    with torch.no_grad(), entering(parts, lambda part, _: executed.append(part)):
        if parts:
            module(torch.zeros(2, *shape))
    if executed:
        raise WeightsError(
            f"the file has no weights for {', '.join(absent)}, which the network runs",
            remedy="give the weights of the whole network, or build it without that part",
        )


def _network(
    name: str, module: nn.Module, spec: InputSpec, input_source: str, source_sha256: str | None
) -> Network:
    require_finite(module, name)
    return Network(name, module, spec, input_source, state_sha256(module), source_sha256)
