"""What a network ends in: logits, one logit, or the probabilities of a softmax or sigmoid.

Losses, agreement and confidences are made for logits, one per class. A network that returns
anything else gets a forward hook that turns it into logits; its layers and their names stay.
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
_TOLERANCE = 1e-4  # of the sum of a row of probabilities


def two_logits(_: nn.Module, __: Any, output: Tensor) -> Tensor:
    """0 and z for one logit z: their softmax is 1 - sigmoid(z) and sigmoid(z)."""
    z = output.reshape(-1, 1)
    return torch.cat([torch.zeros_like(z), z], 1)


def before_softmax(_: nn.Module, __: Any, output: Tensor) -> Tensor:
    """Logits whose softmax the probabilities are, up to a constant per row."""
    return output.clamp_min(torch.finfo(output.dtype).tiny).log()


def before_sigmoid(_: nn.Module, __: Any, output: Tensor) -> Tensor:
    """The logits whose sigmoids these are."""
    return output.logit(eps=torch.finfo(output.dtype).eps)


_HOOKS: dict[str, Callable[..., Tensor]] = {
    "softmax": before_softmax,
    "sigmoid": before_sigmoid,
    "one logit": two_logits,
}


def fit_ending(
    module: nn.Module, output: object, sigmoids: Sigmoids, task: Kind | None
) -> tuple[str, ...]:
    """Let ``module`` return logits of at least two classes, where a hook can do that.

    Args:
        module: it gets the hooks.
        output: that it gave for at least two images of noise.
        sigmoids: that watched.
        task: that the outputs are for; ``None`` for what they look made for.

    Returns:
        What was changed, in words.
    """
    if not isinstance(output, Tensor) or output.dim() not in (1, 2) or task == "tensors":
        return ()
    notes = []
    if task != "multi-label" and _are_distributions(output):
        module.register_forward_hook(before_softmax)
        notes.append("ends in a softmax: losses and measures take the logits before it")
    elif sigmoids.ends_in(output):
        module.register_forward_hook(before_sigmoid)
        notes.append("ends in a sigmoid: losses and measures take the logits before it")
    if task != "multi-label" and (output.dim() == 1 or output.shape[1] == 1):
        module.register_forward_hook(two_logits)
        notes.append("has one logit z: taken as the two logits 0 and z; files keep the one")
    return tuple(notes)


def ends_in_sigmoids(module: nn.Module) -> bool:
    """Whether ``module``, fitted, ended in a sigmoid."""
    return before_sigmoid in module._forward_hooks.values()


def logits_of(output: Tensor) -> Tensor:
    """Logits (B, classes), of a file that may end in a softmax."""
    return before_softmax(_NOTHING, (), output) if _are_distributions(output) else output


def ending_of(module: nn.Module) -> tuple[str, ...]:
    """What makes logits of the outputs that ``module`` had when it was given, in this order."""
    hooks = [hook for part in module.modules() for hook in part._forward_hooks.values()]
    return tuple(name for hook in hooks for name, known in _HOOKS.items() if hook is known)


def with_ending(output: Tensor, ending: tuple[str, ...]) -> Tensor:
    """Logits of an output as it was given; see :func:`ending_of`."""
    for name in ending:
        output = _HOOKS[name](_NOTHING, (), output)
    return output


def as_given(module: Given) -> Given:
    """``module`` with the outputs it was given with: a copy without the hooks, where it has any."""
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
    """Keeps what sigmoids return, for logits may lie between 0 and 1 by chance."""

    def __init__(self) -> None:
        super().__init__()
        self._returned: list[Tensor] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func in _SIGMOIDS:
            self._returned.append(result)
        return result

    def ends_in(self, output: Tensor) -> bool:
        """Whether ``output`` is what the last sigmoid returned, in any shape."""
        if not self._returned:
            return False
        last = self._returned[-1]
        return last.numel() == output.numel() and torch.equal(last.flatten(), output.flatten())
