"""A copy of a module that shares nothing with it, also where the module holds results of a step."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from dreamquant.errors import NetworkError
from dreamquant.networks.zoo import one_line


def own_copy(module: nn.Module) -> nn.Module:
    """A deep copy in which tensors with a backward graph are copied by their values.

    PyTorch copies graph leaves alone; ``weight_norm`` of a network in training, or a buffer that
    was assigned in a forward pass, holds others.

    Raises:
        NetworkError: an attribute cannot be copied; it is named.
    """
    try:
        with _ByValue():
            return copy.deepcopy(module)
    except Exception as error:  # of any type: modules may define how they are copied
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
                remedy="set that attribute to None before, or give its class a __deepcopy__",
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
