"""Recognises ReLUs in all ways to call them; the tap on the last feature map after a ReLU."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from dreamquant.errors import NetworkError
from dreamquant.networks.channel_statistics import full_precision
from dreamquant.networks.taps import Collected, Tap


def _hardtanh_is_relu6(arguments: Sequence[Any], keywords: Mapping[str, Any]) -> bool:
    low = arguments[1] if len(arguments) > 1 else keywords.get("min_val", -1.0)
    return bool(low == 0)


_ALWAYS_RELU: frozenset[Callable[..., Any]] = frozenset(
    {
        F.relu,
        F.relu_,
        F.relu6,
        torch.relu,
        torch.relu_,
        Tensor.relu,
        Tensor.relu_,
    }
)
_HARDTANH: frozenset[Callable[..., Any]] = frozenset({F.hardtanh, F.hardtanh_})


def is_relu(
    function: Callable[..., Any], arguments: Sequence[Any], keywords: Mapping[str, Any]
) -> bool:
    """Whether a torch call is a ReLU or ReLU6, in any spelling."""
    if function in _HARDTANH:
        return _hardtanh_is_relu6(arguments, keywords)
    return function in _ALWAYS_RELU


class _LastReluMap(TorchFunctionMode):
    """Keeps the last feature map (B, F, h, w) that a ReLU returns in a forward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Tensor | None = None

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if is_relu(func, args, kwargs) and result.dim() == 4:
            self.found = result
        return result


@dataclass(frozen=True)
class LastMap(Tap[Tensor]):
    """The last feature map (B, F, h, w) that a ReLU returns, float32."""

    def require(self, network: nn.Module, example: Tensor) -> None:
        """Refuse a network in which no ReLU returns a feature map."""
        with torch.no_grad(), self.watch(network) as collected:
            network(example)
        if not collected():
            raise NetworkError(
                "the method reads the last feature map, and no ReLU of the network returns one",
                remedy="use a method without attention or robustness terms, such as gdfq",
            )

    @contextmanager
    def watch(self, network: nn.Module) -> Iterator[Collected]:
        """Collect the map, if there is one."""
        with _LastReluMap() as mode:
            yield lambda: () if mode.found is None else (mode.found,)

    def value(self, tensors: Sequence[Tensor]) -> Tensor:
        """The map."""
        return full_precision(tensors[0])
