"""Reads, checks and hashes weights as data only; code in weights files never runs."""

from __future__ import annotations

import argparse
import hashlib
import pickle
import re
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy._core.multiarray import scalar
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from dreamquant.errors import WeightsError
from dreamquant.networks.archives import require_no_bomb

# Types that training scripts store beside weights and that contain only values: arguments, and
# numbers of NumPy. NumPy's pickles use both of these module names.
_HARMLESS: list[Any] = [
    argparse.Namespace,
    np.dtype,
    *{type(np.dtype(kind)) for kind in ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "?")},
    *((scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
]
_COUNTER = "num_batches_tracked"
_SHOWN = 10
_DEEPEST = 1  # dots in the position of a state dict: {"ema": {"model": {...}}} is found
_SAVE_REMEDY = "save it again with torch.save(model.state_dict(), FILE) or as safetensors"


def read_groups(path: Path) -> dict[str, dict[str, Tensor]]:
    """Read the state dicts of a weights file, on the CPU; types are those of the file.

    It reads safetensors and files of ``torch.save``, without running code in them.

    Returns:
        The tensors of every dictionary that has any, by position. The position is ``""`` for the
        file's top level, and ``state_dict`` or ``ema.model`` for a nested dictionary.

    Raises:
        WeightsError: the file is missing or damaged, or contains no named tensors.
    """
    if not path.is_file():
        raise WeightsError(
            "the weights file does not exist", where=str(path), remedy="check the path"
        )
    content = _read_safetensors(path) if _is_safetensors(path) else _read_torch(path)
    found = list(_groups(content, ""))
    groups = {group.place: group.tensors for group in found if not group.others}
    if found and not groups:
        raise WeightsError(
            f"the file contains entries that are not tensors: {some(found[0].others)}",
            where=str(path),
            remedy=_SAVE_REMEDY,
        )
    if not groups:
        raise WeightsError(
            f"the file contains {_kind(content)}, not a state dict",
            where=str(path),
            remedy=_SAVE_REMEDY,
        )
    return groups


def require_finite(module: nn.Module, where: str = "") -> None:
    """Refuse weights with NaN or infinite values.

    Args:
        module: the network.
        where: origin of the weights, for the error.

    Raises:
        WeightsError: a tensor contains NaN or infinity; the message names tensors and counts.
    """
    broken = []
    for name, tensor in tensors_of(module).items():
        nans, infinities = int(tensor.isnan().sum()), int(tensor.isinf().sum())
        if nans or infinities:
            broken.append(f"{name}: {nans} NaN, {infinities} infinite of {tensor.numel()}")
    if broken:
        raise WeightsError(
            f"the weights are not finite: {some(broken)}",
            where=where,
            remedy="use a checkpoint from before the training diverged",
        )


def state_sha256(module: nn.Module) -> str:
    """SHA-256 of names, types, shapes and bytes of the state, in hexadecimal.

    It depends only on the values, not on the file they come from. ``num_batches_tracked`` of batch
    norms is left out, because it is missing in some files.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors_of(module).items()):
        if is_counter(name):
            continue
        digest.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        # NumPy has no bfloat16, so the bytes are read with torch.
        digest.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _is_safetensors(path: Path) -> bool:
    if path.suffix == ".safetensors":
        return True
    with path.open("rb") as file:
        start = file.read(9)
    # safetensors: eight bytes with the length of the header, then the header, which is JSON. A zip
    # archive or a pickle cannot begin with a valid length followed by a brace.
    length = int.from_bytes(start[:8], "little")
    return start[8:] == b"{" and length <= path.stat().st_size - 8


def _read_safetensors(path: Path) -> object:
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise _unreadable(path, str(error)) from error


def _read_torch(path: Path) -> object:
    _require_no_other_form(path)
    try:
        require_no_bomb(path)
        with torch.serialization.safe_globals(_HARMLESS):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        # torch's message recommends weights_only=False, which would run the file's code.
        name = re.search(r"GLOBAL (\S+)", str(error))
        found = f", such as {name[1]}" if name else ""
        raise _unreadable(path, f"it contains more than tensors{found}") from error
    # torch.load raises many types for damaged files. Seen: RuntimeError, EOFError, KeyError,
    # IndexError, TypeError, AssertionError, UnicodeDecodeError.
    except Exception as error:
        raise _unreadable(path, "it is damaged or is not a weights file") from error


def _require_no_other_form(path: Path) -> None:
    """Refuse forms of weights whose only loader would run code."""
    if path.suffix == ".onnx":
        raise WeightsError(
            "the weights are an ONNX file, which also contains the network",
            where=str(path),
            remedy=f"give the file as the network: dreamquant quantize {path}",
        )
    form = _archive_form(path)
    if form is not None:
        name, load = form
        raise WeightsError(
            f"the weights are {name}, not a state dict",
            where=str(path),
            remedy=f"if you trust the file: torch.save(dict({load}), NEW), then --weights NEW",
        )


def _archive_form(path: Path) -> tuple[str, str] | None:
    if not zipfile.is_zipfile(path):
        return None
    try:
        with zipfile.ZipFile(path) as archive:
            members = [name.partition("/")[2] for name in archive.namelist()]
    except zipfile.BadZipFile:
        return None  # damaged: the reader reports it
    if any(name.startswith("code/") for name in members) and "constants.pkl" in members:
        return "TorchScript", f"torch.jit.load({str(path)!r}).state_dict()"
    if any(name.startswith(("models/", "serialized_exported_program")) for name in members):
        return "a torch.export program", f"torch.export.load({str(path)!r}).state_dict"
    return None


def _unreadable(path: Path, reason: str) -> WeightsError:
    return WeightsError(
        f"the weights cannot be read: {reason}", where=str(path), remedy=_SAVE_REMEDY
    )


class _Group(NamedTuple):
    """A dictionary with tensors: its position, and its other entries except dictionaries."""

    place: str
    tensors: dict[str, Tensor]
    others: list[str]


def _groups(content: object, place: str) -> Iterator[_Group]:
    if not isinstance(content, Mapping):
        return
    tensors = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
    if tensors:
        others = [
            str(name)
            for name, value in content.items()
            if not isinstance(value, Tensor | Mapping) and not str(name).endswith("_extra_state")
        ]
        yield _Group(place, tensors, others)
    if place.count(".") >= _DEEPEST:
        return
    for name, value in content.items():
        yield from _groups(value, f"{place}.{name}" if place else str(name))


def _kind(content: object) -> str:
    if isinstance(content, Mapping):
        return "a dictionary without tensors" if content else "an empty dictionary"
    return type(content).__name__


def tensors_of(module: nn.Module) -> dict[str, Tensor]:
    """The tensors of a module's state, by name."""
    # A module may add other objects (get_extra_state), which are not weights.
    return {k: v for k, v in module.state_dict().items() if isinstance(v, Tensor)}


def is_counter(name: str) -> bool:
    """Whether this is ``num_batches_tracked`` of a batch norm, which eval mode does not use."""
    return name.rpartition(".")[2] == _COUNTER


def some(names: Iterable[str]) -> str:
    """The first names, and the number of further ones."""
    listed = list(names)
    more = len(listed) - _SHOWN
    return ", ".join(listed[:_SHOWN]) + (f", and {more} more" if more > 0 else "")
