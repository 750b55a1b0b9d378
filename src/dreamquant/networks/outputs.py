"""The outputs of a network: one tensor, or several in tuples, lists and dictionaries."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from dreamquant.errors import NetworkError


def tensors_of(output: object) -> tuple[Tensor, ...]:
    """All tensors of an output, in the order of an exported file.

    Raises:
        NetworkError: the output contains something that is not a tensor.
    """
    return tuple(tensor for _, tensor in _named(output, ""))


def names_of(output: object) -> tuple[str, ...]:
    """Names of the tensors: keys and positions, such as ``boxes.0``; ``""`` for a single one."""
    return tuple(name for name, _ in _named(output, ""))


def as_one(output: object) -> Tensor:
    """A single tensor (B, ...) as it is; several are flattened and concatenated to (B, V)."""
    if isinstance(output, Tensor):
        return output
    return torch.cat([tensor.flatten(1) for tensor in tensors_of(output)], 1)


def require_per_image(output: object, images: int) -> None:
    """Refuse an output whose first dimension is not the number of images.

    Args:
        output: output for a batch.
        images: number of images of that batch.

    Raises:
        NetworkError: the first dimension of a tensor differs, or there is no tensor.
    """
    named = list(_named(output, ""))
    for name, tensor in named:
        if not tensor.dim() or len(tensor) != images:
            which = f"the output {name!r}" if name else "its output"
            raise NetworkError(
                f"{which} for {images} images has the shape {tuple(tensor.shape)}",
                where=name,
                remedy="wrap the network so that the first dimension of every output is the batch",
            )
    if not named:
        raise NetworkError("its output contains no tensor", remedy="let its forward return one")


def _named(output: object, name: str) -> Iterator[tuple[str, Tensor]]:
    if isinstance(output, Tensor):
        yield name, output
        return
    before = f"{name}." if name else ""
    if isinstance(output, Mapping):
        parts = [(str(key), part) for key, part in output.items()]
    elif isinstance(output, (tuple, list)):
        parts = [(str(index), part) for index, part in enumerate(output)]
    else:
        raise NetworkError(
            f"its output contains {type(output).__name__}, which is not a tensor",
            where=name,
            remedy="wrap the network so that it returns one tensor, or tensors in a tuple, list or "
            "dictionary",
        )
    for key, part in parts:
        yield from _named(part, f"{before}{key}")
