"""Recognises matrix products of two tensors, in all ways to call them."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

# Positions of the two factors among the arguments, by name of the function. Names are used because
# PyTorch passes one operation to modes as several function objects.
_FACTORS = {
    **dict.fromkeys(("linear", "conv1d", "conv2d", "conv3d"), (0, 1)),
    **dict.fromkeys(("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"), (0, 1)),
    **dict.fromkeys(("matmul", "__matmul__", "__rmatmul__", "mm", "bmm", "tensordot"), (0, 1)),
    **dict.fromkeys(("addmm", "baddbmm", "einsum"), (1, 2)),
}


def factors(function: Any, args: Any, kwargs: Any) -> tuple[Tensor, Tensor] | None:
    """The two factors of a torch call if it is a product, otherwise ``None``."""
    name = getattr(function, "__name__", "")
    if name not in _FACTORS:
        return None
    flat = [*tree_leaves(args), *tree_leaves(kwargs)]
    first, second = _FACTORS[name]
    found = flat[first : second + 1]
    if len(found) != 2 or not all(isinstance(x, Tensor) for x in found):
        return None
    return found[0], found[1]


def replaced(args: Any, kwargs: Any, changed: dict[int, Tensor]) -> tuple[Any, Any]:
    """Arguments of a call in which each tensor whose ``id`` is a key is replaced."""
    new: tuple[Any, Any] = tree_map(lambda x: changed.get(id(x), x), (args, kwargs))
    return new
