"""Weights of an ONNX file that lie in files beside it, as PyTorch writes them."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

from dreamquant.errors import NetworkError
from dreamquant.networks.onnx_module import part

_EXTERNAL = 1  # TensorProto.EXTERNAL


class Whole(NamedTuple):
    """A file with its weights in it.

    Attributes:
        data: what the file would hold in one piece.
        sha256: of the file and of those beside it, in hexadecimal.
    """

    data: bytes
    sha256: str


def whole(path: Path, data: bytes) -> Whole:
    """An ONNX file in one piece.

    Args:
        path: of the file.
        data: what it holds; damaged, it is given back as it is.

    Raises:
        NetworkError: its weights are missing, or lie elsewhere than beside it.
    """
    onnx = part("onnx")
    try:
        model = onnx.load_model_from_string(data)
    except Exception:  # protobuf raises types of its own; whoever converts it names the damage
        return Whole(data, sha256(data).hexdigest())
    outside = [t for t in model.graph.initializer if t.data_location == _EXTERNAL]
    if not outside:
        return Whole(data, sha256(data).hexdigest())
    files = [_beside(path, name) for name in _locations(outside)]
    digest = sha256(data)
    try:
        for file in files:
            digest.update(file.read_bytes())
        onnx.external_data_helper.load_external_data_for_model(model, str(path.parent))
        return Whole(model.SerializeToString(), digest.hexdigest())
    except Exception as error:  # offsets beyond the file, or more than protobuf takes
        raise NetworkError(
            f"the weights of {path.name} cannot be read from {', '.join(f.name for f in files)}",
            where=str(path),
            remedy="save it in one piece: onnx.save(onnx.load(FILE), NEW)",
        ) from error


def _locations(tensors: Sequence[Any]) -> list[str]:
    entries = (entry for tensor in tensors for entry in tensor.external_data)
    return sorted({entry.value for entry in entries if entry.key == "location"})


def _beside(path: Path, name: str) -> Path:
    """A file of weights: it must lie in the folder of the network, and be no link."""
    file = path.parent / name
    if Path(name).name != name or file.is_symlink():
        raise NetworkError(
            f"the weights lie outside of its folder: {name}",
            where=str(path),
            remedy="save it in one piece: onnx.save(onnx.load(FILE), NEW)",
        )
    if not file.is_file():
        raise NetworkError(
            f"{name}, which holds its weights, is missing",
            where=str(path),
            remedy=f"put {name} beside {path.name}, as it was saved",
        )
    return file
