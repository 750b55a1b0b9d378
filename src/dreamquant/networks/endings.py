"""The ending of a network: logits, one logit, or the probabilities of a softmax or sigmoid.

Losses, agreement and confidences need logits, one per class. A network that returns something else
gets a forward hook that converts its output to logits. Its layers and their names stay.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from dreamquant.networks.choices import Kind

_SIGMOIDS: frozenset[Any] = frozenset(
    {torch.sigmoid, Tensor.sigmoid, torch.special.expit, F.sigmoid}
)
Given = TypeVar("Given", bound=nn.Module)

_NOTHING = nn.Identity()
_TOLERANCE = 1e-4  # for the sum of a row of probabilities


def two_logits(_: nn.Module, __: Any, output: Tensor) -> Tensor:
    """Logits 0 and z for one logit z; their softmax is 1 - sigmoid(z) and sigmoid(z)."""
    z = output.reshape(-1, 1)
    return torch.cat([torch.zeros_like(z), z], 1)


def before_softmax(_: nn.Module, __: Any, output: Tensor) -> Tensor:
    """Logits whose softmax gives these probabilities, up to a constant per row."""
    return output.clamp_min(torch.finfo(output.dtype).tiny).log()


def before_sigmoid(_: nn.Module, __: Any, output: Tensor) -> Tensor:
    """Logits whose sigmoid gives these probabilities."""
    return output.logit(eps=torch.finfo(output.dtype).eps)


_HOOKS: dict[str, Callable[..., Tensor]] = {
    "softmax": before_softmax,
    "sigmoid": before_sigmoid,
    "one logit": two_logits,
}


def fit_ending(
    module: nn.Module, output: object, sigmoids: Sigmoids, task: Kind | None
) -> tuple[str, ...]:
    """Let ``module`` return logits of at least two classes, if a hook can do that.

    Args:
        module: the network, which gets the hooks.
        output: its output for at least two noise images.
        sigmoids: the record of sigmoids of that forward pass.
        task: task of the network; ``None`` if it is to be recognised from the output.

    Returns:
        A description of each change.
    """
    if not isinstance(output, Tensor) or output.dim() not in (1, 2) or task == "regression":
        return ()
    notes = []
    if task != "multi-label" and _are_distributions(output):
        module.register_forward_hook(before_softmax)
        notes.append("ends in a softmax: losses and metrics use the logits before it")
    elif sigmoids.ends_in(output):
        module.register_forward_hook(before_sigmoid)
        notes.append("ends in a sigmoid: losses and metrics use the logits before it")
    if task != "multi-label" and (output.dim() == 1 or output.shape[1] == 1):
        module.register_forward_hook(two_logits)
        notes.append("has one logit z: used as the two logits 0 and z; exported files return z")
    return tuple(notes)


def ends_in_sigmoids(module: nn.Module) -> bool:
    """Whether ``module`` ended in a sigmoid before hooks were added."""
    return before_sigmoid in module._forward_hooks.values()


def logits_of(output: Tensor) -> Tensor:
    """Logits (B, classes) of a file's output, which may be a softmax."""
    return before_softmax(_NOTHING, (), output) if _are_distributions(output) else output


def ending_of(module: nn.Module) -> tuple[str, ...]:
    """Names of the functions that convert the user's outputs to logits, in order of use."""
    hooks = [hook for part in module.modules() for hook in part._forward_hooks.values()]
    return tuple(name for hook in hooks for name, known in _HOOKS.items() if hook is known)


def with_ending(output: Tensor, ending: tuple[str, ...]) -> Tensor:
    """Convert an output of the user's network to logits; see :func:`ending_of`."""
    for name in ending:
        output = _HOOKS[name](_NOTHING, (), output)
    return output


def as_given(module: Given) -> Given:
    """``module`` with the user's outputs: a copy without the hooks, or itself if it has none."""
    if not ending_of(module):
        return module
    own, known = copy.deepcopy(module), tuple(_HOOKS.values())
    for part in own.modules():
        for key in [key for key, hook in part._forward_hooks.items() if hook in known]:
            del part._forward_hooks[key]
    return own


def _are_distributions(output: Tensor) -> bool:
    if output.dim() != 2 or output.shape[1] < 2:
        return False
    sums = output.double().sum(1)
    return bool((output >= 0).all() and ((sums - 1).abs() < _TOLERANCE).all())


class Sigmoids(TorchFunctionMode):
    """Records the results of sigmoids, because logits can lie between 0 and 1 by accident."""

    def __init__(self) -> None:
        super().__init__()
        self._returned: list[Tensor] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func in _SIGMOIDS:
            self._returned.append(result)
        return result

    def ends_in(self, output: Tensor) -> bool:
        """Whether ``output`` is the result of the last sigmoid, in any shape."""
        if not self._returned:
            return False
        last = self._returned[-1]
        return last.numel() == output.numel() and torch.equal(last.flatten(), output.flatten())
