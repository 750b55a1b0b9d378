"""Activation checkpointing switched off: it computes parts of a forward pass again in the backward.

The second forward pass would run outside of the modes that quantize a student and read a teacher,
and its reentrant form gives no gradient to images. Results are the same without it; memory is not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

from torch import nn
from torch.utils import checkpoint

# What torch.utils.checkpoint.checkpoint calls; networks hold that function under names of their
# own, so these are replaced beneath it. Versions of PyTorch have one generator or the other.
_GENERATORS = (
    "_checkpoint_without_reentrant_generator",
    "_checkpoint_without_reentrant_generator_impl",
)


@contextmanager
def keeping_activations() -> Iterator[list[str]]:
    """Let checkpointed functions run as they are.

    Yields:
        A list that gets an entry for every one of them.
    """
    met: list[str] = []

    class Reentrant:
        @staticmethod
        def apply(function: Callable[..., Any], _preserve: bool, *inputs: Any) -> Any:
            met.append("reentrant")
            return function(*inputs)

    def generator(*_: Any, **__: Any) -> Iterator[None]:
        met.append("non-reentrant")
        yield

    with ExitStack() as stack:
        stack.enter_context(patch.object(checkpoint, "CheckpointFunction", Reentrant))
        for name in _GENERATORS:
            if hasattr(checkpoint, name):
                stack.enter_context(patch.object(checkpoint, name, generator))
        yield met


class _KeepingActivations:
    """Hooks around a forward pass; one that runs within another changes nothing."""

    def __init__(self) -> None:
        self._open: list[ExitStack] = []

    def enter(self, _module: nn.Module, _inputs: tuple[Any, ...]) -> None:
        stack = ExitStack()
        stack.enter_context(keeping_activations())
        self._open.append(stack)

    def leave(self, _module: nn.Module, _inputs: tuple[Any, ...], _output: Any) -> None:
        self._open.pop().close()


def switch_off(module: nn.Module) -> None:
    """Let forward passes of ``module``, and of its copies, checkpoint nothing."""
    hooks = _KeepingActivations()
    module.register_forward_pre_hook(hooks.enter)
    module.register_forward_hook(hooks.leave, always_call=True)
