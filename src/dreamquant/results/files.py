"""Writes files completely or not at all, and reads them; errors have a remedy."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from dreamquant.errors import ResultError

_TEMPORARIES = f".{'[0-9a-f]' * 16}.tmp"
_RESTORE = "quantize again or restore a copy"
_WRITE_REMEDIES = {
    errno.ENOSPC: "free some space, or write to another disk",
    errno.EFBIG: "free some space, or write to another disk",
    errno.EDQUOT: "free some of your quota, or write to another disk",
    errno.EACCES: "choose a folder you may write to",
    errno.EPERM: "choose a folder you may write to",
    errno.EROFS: "choose a folder you may write to",
}


def write_bytes(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path`` at once: a reader finds either the old or the new content.

    Raises:
        ResultError: it cannot be written; the earlier content is untouched.
    """
    # In the folder of the target, because only a rename within one file system is atomic.
    temporary = path.with_name(f".{secrets.token_hex(8)}.tmp")
    with writing(path):
        _write_and_rename(temporary, path, data)


def remove_temporaries(folder: Path) -> None:
    """Remove incomplete files of killed processes in a folder and its subfolders.

    Raises:
        ResultError: they cannot be removed.
    """
    for path in folder.rglob(_TEMPORARIES):
        with writing(path):
            path.unlink(missing_ok=True)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn errors of the operating system into errors with a remedy.

    Raises:
        ResultError: ``path`` cannot be written.
    """
    try:
        yield
    except OSError as error:
        raise ResultError(
            f"cannot write {path.name}: {error.strerror or error}",
            where=str(path),
            remedy=_WRITE_REMEDIES.get(error.errno or 0, "check that the folder exists"),
        ) from error


def write_json(path: Path, obj: Mapping[str, Any]) -> None:
    """Write ``obj`` to ``path`` as indented UTF-8 JSON, with keys in the order of insertion.

    Raises:
        ResultError: it cannot be written; the earlier content is untouched.
        ValueError: a number is not finite, which JSON cannot represent.
        TypeError: a value has a type that JSON does not have.
    """
    text = json.dumps(obj, indent=2, ensure_ascii=False, allow_nan=False)
    write_bytes(path, f"{text}\n".encode())


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Put tensors of any layout and device at ``path`` as safetensors; equal input, equal bytes.

    Tensors that share memory are written once each.

    Raises:
        ResultError: it cannot be written; what was at ``path`` is untouched.
    """
    copies = {
        name: tensor.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
        for name, tensor in tensors.items()
    }
    write_bytes(path, _with_metadata(save(copies), metadata))


def read_json(path: Path) -> dict[str, Any]:
    """Return the JSON object at ``path``.

    Raises:
        ResultError: it is missing, unreadable, cut off, or not a JSON object.
    """
    try:
        obj = json.loads(path.read_bytes())
    except OSError as error:
        raise _unreadable(path, error) from error
    # JSONDecodeError and UnicodeDecodeError are both ValueErrors; brackets may be nested too deep.
    except (ValueError, RecursionError) as error:
        raise _damaged(path, f"is not JSON: {error}") from error
    if not isinstance(obj, dict):
        raise _damaged(path, f"contains a JSON {type(obj).__name__}, not an object")
    return obj


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors, on the CPU, and the metadata of the safetensors file at ``path``.

    Raises:
        ResultError: it is missing, unreadable, cut off, or not safetensors.
    """
    try:
        with safe_open(path, framework="pt") as file:
            names = list(file.keys())
            return {name: file.get_tensor(name) for name in names}, file.metadata() or {}
    except OSError as error:
        raise _unreadable(path, error) from error
    except SafetensorError as error:
        raise _damaged(path, f"is not a complete safetensors file: {error}") from error


def make_folder(folder: Path) -> None:
    """Make a folder and its parents, if they are missing.

    Raises:
        ResultError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ResultError(
            f"cannot make the folder: {error.strerror}",
            where=str(folder),
            remedy="choose a folder that you may write to",
        ) from error


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of the file at ``path`` in hexadecimal.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write_and_rename(temporary: Path, path: Path, data: bytes) -> None:
    # Created before writing, so that only a file made here is removed.
    temporary.touch(exist_ok=False)
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:  # also after Ctrl-C no temporary file must stay
        temporary.unlink(missing_ok=True)
        raise


def _with_metadata(safetensors: bytes, metadata: Mapping[str, str]) -> bytes:
    """Return the file with ``metadata`` sorted in its header.

    safetensors writes metadata in an order that changes between runs, so equal results would have
    different hashes.
    """
    length = int.from_bytes(safetensors[:8], "little")
    header = {"__metadata__": dict(sorted(metadata.items()))} | json.loads(
        safetensors[8 : 8 + length]
    )
    encoded = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    # Padded, as the format requires, so that tensors start at a multiple of 8 bytes.
    encoded += b" " * (-len(encoded) % 8)
    return b"".join(
        (len(encoded).to_bytes(8, "little"), encoded, memoryview(safetensors)[8 + length :])
    )


def _unreadable(path: Path, error: OSError) -> ResultError:
    remedy = "check the path" if isinstance(error, FileNotFoundError) else "check the permissions"
    return ResultError(
        f"cannot read {path.name}: {error.strerror or error}", where=str(path), remedy=remedy
    )


def _damaged(path: Path, what: str) -> ResultError:
    return ResultError(f"{path.name} {what}", where=str(path), remedy=_RESTORE)
