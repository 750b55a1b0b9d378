"""Builds a network from its origin: a model zoo, a Python file or an ONNX file."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from dreamquant.errors import NetworkError
from dreamquant.networks.beside import beside
from dreamquant.networks.forms import exported_program
from dreamquant.networks.found import Boxes, Found
from dreamquant.networks.onnx_file import names_onnx_file, network_in, read_onnx
from dreamquant.networks.spec import InputSpec
from dreamquant.networks.user_file import UserFile, names_user_file, read_user_file
from dreamquant.networks.zoo import ZOOS

FORMS = ", ".join((*(f"{zoo}:NAME" for zoo in ZOOS), "FILE.py:FACTORY", "FILE.onnx"))


def find(
    name: str,
    *,
    pretrained: bool,
    num_classes: int | None,
    shape: tuple[int, ...] | None = None,
) -> tuple[Found, str | None]:
    """Find the network of that name; returns also the SHA-256 of its file.

    Args:
        name: see :func:`dreamquant.networks.load.load_network`.
        pretrained: load the weights of the zoo; a factory decides about its weights itself.
        num_classes: number of logits of a zoo's network; a factory decides itself.
        shape: shape of one input, for an ONNX file that allows several.

    Raises:

    """
    zoo, _, architecture = name.partition(":")
    if zoo in ZOOS:
        if num_classes == 1:
            raise NetworkError(
                "a network of a zoo cannot be built with one logit",
                where="--classes 1",
                remedy="give FILE.py:FACTORY; let the factory return the zoo's network with it",
            )
        return ZOOS[zoo](architecture, pretrained=pretrained, num_classes=num_classes), None
    if names_onnx_file(name):
        file = read_onnx(name)
        return network_in(file, shape), file.sha256
    factory = _read_factory(name)
    return _found_in(factory), factory.sha256


def find_again(name: str, spec: InputSpec, source_sha256: str | None, *, pretrained: bool) -> Found:
    """Find a network again when a result is opened.

    Raises:
        NetworkError: it cannot be found or built, or the file has changed; then none of its code
                has run.
    """
    if name.partition(":")[0] not in ZOOS:
        _require_same_file(name, source_sha256)
    return find(name, pretrained=pretrained, num_classes=spec.num_classes, shape=spec.shape)[0]


def boxes_of(name: str, spec: InputSpec, source_sha256: str | None) -> Boxes | None:
    """The function that converts a network's outputs to boxes, if its file defines one.

    Raises:
        NetworkError: see :func:`find_again`.
    """
    if spec.task != "regression" or source_sha256 is None or names_onnx_file(name):
        return None
    return find_again(name, spec, source_sha256, pretrained=False).boxes


def named_boxes(name: str) -> Boxes:
    """The function ``FILE.py:NAME`` that converts outputs to boxes.

    Raises:
        NetworkError: there is no such function.
    """
    if not names_user_file(name):
        raise NetworkError(
            f"{name!r} does not name a function", where="--boxes", remedy="give FILE.py:NAME"
        )
    found = read_user_file(name, NetworkError).attribute()
    if not callable(found):
        raise NetworkError(f"{name} is not a function", where="--boxes", remedy="give FILE.py:NAME")
    return cast(Boxes, found)


def _require_same_file(name: str, source_sha256: str | None) -> None:
    file = read_onnx(name) if names_onnx_file(name) else _read_factory(name)
    if file.sha256 != source_sha256:
        raise NetworkError(
            f"{file.path.name} is not the file that this network was built from",
            where=f"{file.path}, sha256 {file.sha256}",
            remedy=f"restore the file as it was, sha256 {source_sha256 or 'not recorded'}",
        )


def _read_factory(name: str) -> UserFile:
    if not names_user_file(name):
        raise NetworkError(
            f"{name!r} does not name a network", where="NETWORK", remedy=f"give one of {FORMS}"
        )
    return read_user_file(name, NetworkError)


def _found_in(factory: UserFile) -> Found:
    build, defined = factory.value_and_rest()
    return _with_input(_build(factory, build), factory.path, defined)


def _build(factory: UserFile, build: Any) -> nn.Module:
    if isinstance(build, nn.Module):
        return copy.deepcopy(build)
    try:
        with beside(factory.path, anew=False):
            module = build(*factory.positional, **factory.named)
    except (Exception, SystemExit) as error:  # the user's code may raise anything
        remedy = _call_remedy(factory, build) if isinstance(error, TypeError) else ""
        raise factory.failed(f"{factory.name}() failed", error, remedy) from error
    if isinstance(module, torch.export.ExportedProgram):
        raise exported_program(factory.name)
    if not isinstance(module, nn.Module):
        raise NetworkError(
            f"{factory.name}() returns {type(module).__name__}, not a torch.nn.Module",
            where=str(factory.path),
            remedy="let it return the network",
        )
    return module


def _call_remedy(factory: UserFile, build: Any) -> str:
    """The remedy if the given arguments do not fit; ``""`` if they fit."""
    try:
        signature = inspect.signature(build)
    except (TypeError, ValueError):
        return f"name a function or class in {factory.path.name} that builds the network"
    try:
        signature.bind(*factory.positional, **factory.named)
    except TypeError:
        example = ", ".join(
            f"{parameter.name}=…"
            for parameter in signature.parameters.values()
            if parameter.default is parameter.empty and parameter.kind is not parameter.VAR_KEYWORD
        )
        return (
            f"give its arguments {signature} as literals: "
            f"{factory.path.name}:{factory.name}({example})"
        )
    return ""


# --------------------------------------------------------- the input that a file defines


def _with_input(module: nn.Module, path: Path, defined: Mapping[str, Any]) -> Found:
    """The input that the file defines: INPUT or SIZE, MEAN, STD, BGR and so on."""
    mean, std = (_numbers(defined.get(name)) for name in ("MEAN", "STD"))
    shape = _shape(module, defined, mean)
    classes, boxes = defined.get("CLASSES"), defined.get("boxes")
    features = defined.get("FEATURES")
    return Found(
        module,
        source=path.name if shape or mean or std else "",
        shape=shape,
        mean=mean,
        std=std,
        class_names=_names(classes),
        num_classes=classes if isinstance(classes, int) else None,
        features=features if isinstance(features, bool) else None,
        bgr=defined.get("BGR") is True,
        boxes=boxes if callable(boxes) else None,
    )


def _names(value: object) -> tuple[str, ...]:
    if not isinstance(value, Sequence) or isinstance(value, str):
        return ()
    names = [one for one in value if isinstance(one, str)]
    return tuple(names) if len(names) == len(value) else ()


def _numbers(value: object) -> tuple[float, ...] | None:
    values = (value,) if isinstance(value, int | float) else value
    if not isinstance(values, Sequence) or not values:
        return None
    numbers = [one for one in values if isinstance(one, int | float)]
    return tuple(numbers) if len(numbers) == len(values) else None


def _shape(
    module: nn.Module, defined: Mapping[str, Any], mean: tuple[float, ...] | None
) -> tuple[int, ...] | None:
    given, size = (_sides(defined.get(name)) for name in ("INPUT", "SIZE"))
    if given is not None and len(given) > 1:
        return given
    if size is None or len(size) > 2:
        return size
    if mean is None:
        return None
    plane = size if len(size) == 2 else size * 2
    # A feature map with one channel may have no channel axis; the network accepts one of the two.
    if len(mean) == 1 and not _runs(module, (1, *plane)) and _runs(module, plane):
        return plane
    return (len(mean), *plane)


def _sides(value: object) -> tuple[int, ...] | None:
    values = (value,) if isinstance(value, int) else value
    if not isinstance(values, Sequence) or not values:
        return None
    sides = [one for one in values if isinstance(one, int)]
    return tuple(sides) if len(sides) == len(values) else None


def _runs(module: nn.Module, shape: tuple[int, ...]) -> bool:
    try:
        with torch.no_grad():
            module.eval()(torch.zeros(1, *shape))
    except Exception:  # the network's code may raise anything
        return False
    return True
