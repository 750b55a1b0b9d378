"""Copies a module completely, even if it stores results of a training step."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from dreamquant.errors import NetworkError
from dreamquant.networks.zoo import one_line


def own_copy(module: nn.Module) -> nn.Module:
    """A deep copy; of tensors with a backward graph, only the values are copied.

    PyTorch can copy only graph leaves. Other tensors occur in ``weight_norm`` of a network in
    training, and in buffers that a forward pass assigns.

    Raises:
        NetworkError: an attribute cannot be copied; the message names it.
    """
    try:
        with _ByValue():
            return copy.deepcopy(module)
    except Exception as error:  # of any type, because modules may define how they are copied
        raise _refusal(module, error) from error


class _ByValue(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is Tensor.__deepcopy__ and not args[0].is_leaf:
            tensor, memo = args
            memo[id(tensor)] = copied = tensor.detach().clone()
            return copied
        return func(*args, **(kwargs or {}))


def _refusal(module: nn.Module, error: Exception) -> NetworkError:
    kind = type(module).__name__
    for place, value in _attributes(module):
        reason = _obstacle(value)
        if reason is not None:
            return NetworkError(
                f"{kind} cannot be copied: {reason}",
                where=f"its attribute {place}, of type {type(value).__name__}",
                remedy="set that attribute to None first, or give its class a __deepcopy__",
            )
    return NetworkError(
        f"{kind} cannot be copied: {one_line(error)}",
        remedy="give the network as FILE.py:FACTORY, which builds it",
    )


def _attributes(module: nn.Module) -> Iterator[tuple[str, Any]]:
    for path, part in module.named_modules():
        for name, value in vars(part).items():
            if name not in ("_modules", "_parameters", "_buffers"):
                yield f"{path}.{name}" if path else name, value


def _obstacle(value: Any) -> str | None:
    try:
        with _ByValue():
            copy.deepcopy(value)
    except Exception as error:  # as above
        return one_line(error)
    return None
