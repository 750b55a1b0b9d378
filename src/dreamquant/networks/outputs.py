"""What a network returns: one tensor, or several in tuples, lists and dictionaries."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from dreamquant.errors import NetworkError


def tensors_of(output: object) -> tuple[Tensor, ...]:
    """All tensors of an output, in the order in which an exported file has them.

    Raises:
        NetworkError: it holds something else too.
    """
    return tuple(tensor for _, tensor in _named(output, ""))


def names_of(output: object) -> tuple[str, ...]:
    """Their names: keys and positions on the way to each, as in ``boxes.0``; one has no name."""
    return tuple(name for name, _ in _named(output, ""))


def as_one(output: object) -> Tensor:
    """The tensor (B, ...) where there is one; else the values of all in a row per image (B, V)."""
    if isinstance(output, Tensor):
        return output
    return torch.cat([tensor.flatten(1) for tensor in tensors_of(output)], 1)


def require_per_image(output: object, images: int) -> None:
    """Refuse an output that does not keep the images apart.

    Args:
        output: for a batch of so many images.
        images: how many.

    Raises:
        NetworkError: a tensor has another first dimension, or there is no tensor.
    """
    named = list(_named(output, ""))
    for name, tensor in named:
        if not tensor.dim() or len(tensor) != images:
            which = f"the output {name!r}" if name else "its output"
            raise NetworkError(
                f"{which} for {images} images has the shape {tuple(tensor.shape)}",
                where=name,
                remedy="wrap the network so that the first dimension of every output counts images",
            )
    if not named:
        raise NetworkError("its output holds no tensor", remedy="let its forward return one")


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
            f"its output holds {type(output).__name__}, which is no tensor",
            where=name,
            remedy="wrap the network so that it returns tensors, alone or in a tuple, list or "
            "dictionary",
        )
    for key, part in parts:
        yield from _named(part, f"{before}{key}")
