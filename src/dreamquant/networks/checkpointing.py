"""Switches activation checkpointing off, which repeats parts of the forward pass in the backward.

The repeated parts would run outside of the modes that quantize a student and read a teacher. The
reentrant form also gives no gradient to images. Without checkpointing, results are the same, but
more memory is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

from torch import nn
from torch.utils import checkpoint

# Functions that torch.utils.checkpoint.checkpoint calls. Networks may import checkpoint itself
# under any name, so the functions that it calls are replaced. A PyTorch version has one of these.
_GENERATORS = (
    "_checkpoint_without_reentrant_generator",
    "_checkpoint_without_reentrant_generator_impl",
)


@contextmanager
def keeping_activations() -> Iterator[list[str]]:
    """Run checkpointed functions directly, without checkpointing.

    Yields:
        A list that gets one entry for each checkpointed function that runs.
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
    """Hooks around a forward pass; nested forward passes are allowed."""

    def __init__(self) -> None:
        self._open: list[ExitStack] = []

    def enter(self, _module: nn.Module, _inputs: tuple[Any, ...]) -> None:
        stack = ExitStack()
        stack.enter_context(keeping_activations())
        self._open.append(stack)

    def leave(self, _module: nn.Module, _inputs: tuple[Any, ...], _output: Any) -> None:
        self._open.pop().close()


def switch_off(module: nn.Module) -> None:
    """Let forward passes of ``module`` and of its copies run without checkpointing."""
    hooks = _KeepingActivations()
    module.register_forward_pre_hook(hooks.enter)
    module.register_forward_hook(hooks.leave, always_call=True)
