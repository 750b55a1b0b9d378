"""Turns any failure while a network is traced into one error."""

from __future__ import annotations

import builtins
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from io import StringIO

from torch import Tensor, nn

from dreamquant.errors import ExportError
from dreamquant.networks.zoo import one_line

_TALKATIVE = ("torch.onnx", "torch.fx.experimental.symbolic_shapes")


@contextmanager
def tracing(network: nn.Module, exporter: str) -> Iterator[None]:
    """Turn any exception inside into an :class:`ExportError` that names the network.

    Messages of the exporter about its internals are suppressed.

    Args:
        network: the user's network.
        exporter: name of the function that traces it.
    """
    try:
        with _quiet(), _symbolic_len():
            yield
    except Exception as error:  # the network's code and any operation may fail
        raise ExportError(
            f"the network cannot be exported: {_cause(error)}",
            where=type(network).__name__,
            remedy=f"write that part of its forward pass with operations that `{exporter}` "
            f"supports, "
            "for any number of images",
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress messages: PyTorch logs, warns and prints whole programs."""
    loggers = [logging.getLogger(name) for name in _TALKATIVE]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stderr(StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


@contextmanager
def _symbolic_len() -> Iterator[None]:
    """Let ``len(x)`` of a tensor be symbolic, like ``x.shape[0]``.

    Python converts it to a number otherwise, and the graph would accept only this number of images.
    """
    length = builtins.len
    builtins.len = lambda x: x.shape[0] if isinstance(x, Tensor) and x.dim() else length(x)
    try:
        yield
    finally:
        builtins.len = length


def _cause(error: BaseException) -> str:
    """The message of the first exception of a chain, which is the network's."""
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {one_line(error)}"
