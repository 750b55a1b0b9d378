"""Weights as data only: read, matched to a network, checked, hashed; no code in them ever runs."""

from __future__ import annotations

import hashlib
import pickle
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from dreamquant.errors import WeightsError
from dreamquant.networks.archives import require_no_bomb

_WRAPPERS = ("state_dict", "model", "model_state_dict", "net")
_PARALLEL_PREFIX = "module."
_COUNTER = "num_batches_tracked"
_SHOWN = 10
_SAVE_REMEDY = "save it again with torch.save(model.state_dict(), FILE) or as safetensors"


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """The tensors of a weights file by name, on the CPU, of the file's own types.

    Reads safetensors and files of ``torch.save``, the latter without running any code in them. A
    state dict may be wrapped in a dictionary under ``state_dict``, ``model``,
    ``model_state_dict`` or ``net``, and its names may all begin with ``module.``.

    Raises:
        WeightsError: the file is missing, damaged, or holds anything but named tensors.
    """
    if not path.is_file():
        raise WeightsError(
            "there is no such weights file", where=str(path), remedy="check the path"
        )
    content = _read_safetensors(path) if _is_safetensors(path) else _read_torch(path)
    return _without_prefix(_named_tensors(_unwrapped(content, path), path))


def load_weights(module: nn.Module, path: Path, *, drop_unexpected: bool = False) -> None:
    """Load a weights file into ``module``: every tensor, each of its own shape.

    Only batch-norm's ``num_batches_tracked`` may be missing: it plays no part in evaluation.

    Args:
        module: takes the weights, in place and in its own types.
        path: see :func:`read_state_dict`.
        drop_unexpected: let the file hold tensors the network does not have.

    Raises:
        WeightsError: the file is unreadable, or its names, shapes or types are not the network's.
    """
    found, wanted = read_state_dict(path), _tensors(module)
    mismatches = _mismatches(found, wanted)
    if drop_unexpected:
        del mismatches["unexpected"]
    lines = [f"\n  {len(v)} {kind}: {_some(v)}" for kind, v in mismatches.items() if v]
    if lines:
        raise WeightsError(
            "the weights belong to another network" + "".join(lines),
            where=str(path),
            remedy="name the architecture they were trained in; give --classes if only the "
            "last layer differs",
        )
    # Not strict: what is missing or unexpected at this point has been judged above.
    module.load_state_dict({k: v for k, v in found.items() if k in wanted}, strict=False)


def require_finite(module: nn.Module, where: str = "") -> None:
    """Refuse weights that are not numbers.

    Args:
        module: the network.
        where: its weights come from.

    Raises:
        WeightsError: a tensor of the network holds NaN or infinity; it names them with counts.
    """
    broken = []
    for name, tensor in _tensors(module).items():
        nans, infinities = int(tensor.isnan().sum()), int(tensor.isinf().sum())
        if nans or infinities:
            broken.append(f"{name}: {nans} NaN, {infinities} infinite of {tensor.numel()}")
    if broken:
        raise WeightsError(
            f"the weights are not finite: {_some(broken)}",
            where=where,
            remedy="take a checkpoint from before the training diverged",
        )


def state_sha256(module: nn.Module) -> str:
    """SHA-256 over names, types, shapes and bytes of the state, in hexadecimal.

    The same for the same numbers, whatever the file they came from; batch-norm's
    ``num_batches_tracked`` does not count, as files may lack it.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(_tensors(module).items()):
        if _is_counter(name):
            continue
        digest.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        # bfloat16 has no numpy type, so the bytes are taken in torch.
        digest.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _is_safetensors(path: Path) -> bool:
    if path.suffix == ".safetensors":
        return True
    with path.open("rb") as file:
        start = file.read(9)
    # Eight bytes of header length, then the header, which is JSON. Neither a zip archive nor a
    # pickle can begin with a length that fits the file and have the brace there.
    length = int.from_bytes(start[:8], "little")
    return start[8:] == b"{" and length <= path.stat().st_size - 8


def _read_safetensors(path: Path) -> object:
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise _unreadable(path, str(error)) from error


def _read_torch(path: Path) -> object:
    try:
        require_no_bomb(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        # torch's own message advises weights_only=False, which would run the file's code.
        name = re.search(r"GLOBAL (\S+)", str(error))
        found = f", such as {name[1]}" if name else ""
        raise _unreadable(path, f"it holds more than tensors{found}") from error
    # A damaged file makes torch.load raise nearly anything: RuntimeError, EOFError, KeyError,
    # IndexError, TypeError, AssertionError, UnicodeDecodeError have been seen.
    except Exception as error:
        raise _unreadable(path, "it is damaged, or no weights file at all") from error


def _unreadable(path: Path, reason: str) -> WeightsError:
    return WeightsError(
        f"the weights cannot be read: {reason}", where=str(path), remedy=_SAVE_REMEDY
    )


def _unwrapped(content: object, path: Path) -> object:
    if not isinstance(content, Mapping):
        return content
    wrappers = [key for key in _WRAPPERS if isinstance(content.get(key), Mapping)]
    if len(wrappers) > 1:
        raise WeightsError(
            f"the file holds several networks: {', '.join(wrappers)}",
            where=str(path),
            remedy="save the state dict of one of them",
        )
    return content[wrappers[0]] if wrappers else content


def _named_tensors(content: object, path: Path) -> dict[str, Tensor]:
    if not isinstance(content, Mapping) or not content:
        raise WeightsError(
            f"the file holds no state dict but {_kind(content)}",
            where=str(path),
            remedy=_SAVE_REMEDY,
        )
    others = [str(k) for k, v in content.items() if not isinstance(v, Tensor)]
    if others:
        raise WeightsError(
            f"the file holds entries that are no tensors: {_some(others)}",
            where=str(path),
            remedy=_SAVE_REMEDY,
        )
    return {str(name): tensor for name, tensor in content.items()}


def _kind(content: object) -> str:
    return "an empty dictionary" if isinstance(content, Mapping) else type(content).__name__


def _without_prefix(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    if not all(name.startswith(_PARALLEL_PREFIX) for name in tensors):
        return tensors
    return {name.removeprefix(_PARALLEL_PREFIX): tensor for name, tensor in tensors.items()}


def _mismatches(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, list[str]]:
    return {
        "missing": [n for n in wanted if n not in found and not _is_counter(n)],
        "unexpected": [n for n in found if n not in wanted],
        "of another shape or type": [
            f"{name} {_describe(found[name])} instead of {_describe(tensor)}"
            for name, tensor in wanted.items()
            if name in found and not _fits(found[name], tensor)
        ],
    }


def _fits(found: Tensor, wanted: Tensor) -> bool:
    # Half precision becomes float exactly; integer codes read as float would be other numbers.
    same_kind = found.is_floating_point() == wanted.is_floating_point()
    return same_kind and found.layout == wanted.layout and found.shape == wanted.shape


def _describe(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    # A module may add objects of its own (get_extra_state), which are no weights.
    return {k: v for k, v in module.state_dict().items() if isinstance(v, Tensor)}


def _is_counter(name: str) -> bool:
    return name.rpartition(".")[2] == _COUNTER


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    more = len(listed) - _SHOWN
    return ", ".join(listed[:_SHOWN]) + (f", and {more} more" if more > 0 else "")
