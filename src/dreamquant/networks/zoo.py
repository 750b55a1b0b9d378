"""Networks of torchvision, timm and pytorchcv; only this file imports them, and only when needed.

A zoo is available only if its import succeeds. A zoo that was built for another version of torch is
installed, but its import raises RuntimeError or OSError.
"""

from __future__ import annotations

import contextlib
import difflib
import importlib.metadata
import math
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any

from dreamquant.errors import NetworkError
from dreamquant.networks.checkpoints import load_weights
from dreamquant.networks.found import Found

_UNUSABLE = (ImportError, RuntimeError, OSError)

# These builders change these arguments if they get weights. They get the same arguments without
# weights, so that a name is always the same architecture.
_TORCHVISION_ARGUMENTS: dict[str, dict[str, object]] = {
    "googlenet": {"transform_input": True, "aux_logits": False, "init_weights": False},
    "inception_v3": {"transform_input": True, "init_weights": False},
}

# pytorchcv contains no normalisation. These are the defaults of its training scripts, which are in
# another repository: https://github.com/osmr/imgclsmob, pytorch/datasets/cifar10_cls_dataset.py.
_PYTORCHCV_CIFAR_HINT = (
    "pytorchcv's CIFAR networks were trained with "
    "--mean 0.4914,0.4822,0.4465 --std 0.2023,0.1994,0.2010"
)


def from_torchvision(
    architecture: str, *, pretrained: bool, num_classes: int | None = None
) -> Found:
    """A classification network of torchvision.

    Args:
        architecture: ``resnet50``, or ``resnet50.IMAGENET1K_V1`` to select weights and their
            preprocessing.
        pretrained: load these weights, from the cache or the internet.
        num_classes: number of logits if not pretrained; ``None`` for torchvision's default.

    Raises:
        NetworkError: torchvision cannot be used, does not know the name, or cannot build it.
    """
    models = _import_torchvision()
    builder, _, tag = architecture.partition(".")
    _require_known("torchvision network", builder, models.list_models(module=models))
    choices = models.get_model_weights(builder)
    tag = tag or "DEFAULT"
    _require_known(f"torchvision weights of {builder} named", tag, choices.__members__)
    weights = choices[tag]
    arguments: dict[str, object] = {"weights": weights}
    if not pretrained:
        same = _torchvision_arguments(builder, weights)
        arguments = _without_nones(num_classes=num_classes) | same
    with _building("torchvision", architecture, pretrained):
        module = models.get_model(builder, **arguments)
    transforms = weights.transforms()
    return Found(
        module,
        source=f"torchvision {weights}",
        shape=(3, transforms.crop_size[0], transforms.crop_size[0]),
        mean=tuple(transforms.mean),
        std=tuple(transforms.std),
        resize=transforms.resize_size[0],
        class_names=tuple(weights.meta["categories"]) if pretrained else (),
    )


def from_timm(architecture: str, *, pretrained: bool, num_classes: int | None = None) -> Found:
    """A network of timm.

    Args:
        architecture: ``mobilenetv2_100`` or, with a tag of its weights, ``resnet18.a1_in1k``.
        pretrained: load these weights, from the cache or the internet.
        num_classes: number of logits if not pretrained; ``None`` for timm's default.

    Raises:
        NetworkError: timm cannot be used, does not know the name, or cannot build it.
    """
    timm = _import_timm()
    known = timm.list_pretrained() if "." in architecture else timm.list_models()
    _require_known("timm network", architecture, known)
    arguments = {} if pretrained else _without_nones(num_classes=num_classes)
    with _building("timm", architecture, pretrained):
        module = timm.create_model(architecture, pretrained=pretrained, **arguments)
    config: dict[str, Any] = module.pretrained_cfg
    shape, crop = config.get("input_size"), config.get("crop_pct")
    tag = ".".join(part for part in (config.get("architecture"), config.get("tag")) if part)
    return Found(
        module,
        source=f"timm pretrained_cfg {tag}".rstrip(),
        shape=_optional_tuple(shape),
        mean=_optional_tuple(config.get("mean")),
        std=_optional_tuple(config.get("std")),
        resize=math.floor(min(shape[1:]) / crop) if shape and crop else None,
        class_names=tuple(config.get("label_names") or ()) if pretrained else (),
    )


def from_pytorchcv(architecture: str, *, pretrained: bool, num_classes: int | None = None) -> Found:
    """A network of pytorchcv, which defines the image size of its networks but no normalisation.

    Args:
        architecture: name, such as ``resnet20_cifar10``.
        pretrained: load its weights, from the cache or the internet.
        num_classes: number of logits if not pretrained; ``None`` for pytorchcv's default.

    Raises:
        NetworkError: pytorchcv cannot be used, does not know the name, or cannot build it.
    """
    provider = _import_pytorchcv()
    # The table of names is private, but there is no public one.
    _require_known("pytorchcv network", architecture, provider._models)
    arguments = {} if pretrained else _without_nones(num_classes=num_classes)
    with _building("pytorchcv", architecture, pretrained):
        module = provider.get_model(architecture, **arguments)
        if pretrained:
            # Some of its files contain tensors of training, which its loader ignores too.
            load_weights(module, _pytorchcv_weights(architecture), drop_unexpected=True)
    size = getattr(module, "in_size", None)
    return Found(
        module,
        source="pytorchcv in_size" if size else "",
        shape=(3, *size) if size else None,
        hint=_PYTORCHCV_CIFAR_HINT if "_cifar" in architecture else "",
    )


ZOOS: MappingProxyType[str, Callable[..., Found]] = MappingProxyType(
    {"torchvision": from_torchvision, "timm": from_timm, "pytorchcv": from_pytorchcv}
)
"""For each prefix of a name, the function that finds the network."""


def zoo_versions() -> dict[str, str]:
    """For each zoo its version, or in one line the reason why it cannot be used."""
    importers = {
        "torchvision": _import_torchvision,
        "timm": _import_timm,
        "pytorchcv": _import_pytorchcv,
    }
    return {zoo: _version(zoo, importer) for zoo, importer in importers.items()}


def one_line(error: BaseException, limit: int = 300) -> str:
    """The message of an error without line breaks, or its type if there is no message."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= limit else text[: limit - 1] + "…"


def nearest(name: str, known: Iterable[str]) -> str:
    """``"; nearest: a, b"`` with the known names most similar to ``name``, or ``""``."""
    names = difflib.get_close_matches(name, sorted(known), n=3, cutoff=0.5)
    return f"; nearest: {', '.join(names)}" if names else ""


def _version(zoo: str, importer: Callable[[], ModuleType]) -> str:
    try:
        importer()
    except NetworkError as error:
        return error.what
    return importlib.metadata.version(zoo)


def _import_torchvision() -> ModuleType:
    try:
        import torchvision.models
    except _UNUSABLE as error:
        raise _unusable("torchvision", error) from error
    models: ModuleType = torchvision.models
    return models


def _import_timm() -> ModuleType:
    try:
        import timm
    except _UNUSABLE as error:
        raise _unusable("timm", error) from error
    zoo: ModuleType = timm
    return zoo


def _import_pytorchcv() -> ModuleType:
    try:
        import pytorchcv.model_provider
    except _UNUSABLE as error:
        raise _unusable("pytorchcv", error) from error
    provider: ModuleType = pytorchcv.model_provider
    return provider


def _unusable(zoo: str, error: BaseException) -> NetworkError:
    remedy = 'pip install "dreamquant[zoo]"'
    if not isinstance(error, ModuleNotFoundError):
        remedy += ", with builds of torch, torchvision and timm that match each other"
    return NetworkError(f"{zoo} cannot be used: {one_line(error)}", remedy=remedy)


def _require_known(what: str, name: str, known: Iterable[str]) -> None:
    if name not in known:
        raise NetworkError(
            f"there is no {what} {name!r}{nearest(name, known)}",
            where=name,
            remedy=f"give a name that this version of {what.split()[0]} has",
        )


@contextlib.contextmanager
def _building(zoo: str, architecture: str, pretrained: bool) -> Iterator[None]:
    """Turn any exception of a zoo's builder into a NetworkError with a remedy."""
    try:
        # pytorchcv prints its downloads, which do not belong into a command's output.
        with contextlib.redirect_stdout(sys.stderr):
            yield
    # Code of another project: downloads fail with many types of exception, and a wrong number of
    # classes raises ValueError, AssertionError and others.
    except Exception as error:
        doing = "get the weights of" if pretrained else "build"
        remedy = (
            "check the connection, or get the weights elsewhere and give --weights FILE"
            if pretrained
            else "check --classes, or give another network"
        )
        raise NetworkError(
            f"{zoo} cannot {doing} {architecture}: {one_line(error)}", where=zoo, remedy=remedy
        ) from error


def _torchvision_arguments(builder: str, weights: Any) -> dict[str, object]:
    if builder.startswith("vit_"):
        return {"image_size": weights.meta["min_size"][0]}
    return _TORCHVISION_ARGUMENTS.get(builder, {})


def _pytorchcv_weights(architecture: str) -> Path:
    # pytorchcv's loader unpickles anything in the file, so only its download is used.
    from pytorchcv.models.common.model_store import get_model_file

    return Path(get_model_file(architecture))


def _without_nones(**arguments: object) -> dict[str, object]:
    return {name: value for name, value in arguments.items() if value is not None}


def _optional_tuple(values: Any) -> Any:
    return None if values is None else tuple(values)
