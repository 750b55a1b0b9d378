"""A network's own code while it is traced: whatever goes wrong there is told as one error."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from dreamquant.errors import ExportError
from dreamquant.networks.zoo import one_line


@contextmanager
def tracing(network: nn.Module, exporter: str) -> Iterator[None]:
    """Whatever is raised inside becomes an :class:`ExportError` that names the network.

    Args:
        network: the user's own.
        exporter: the function that traces it.
    """
    try:
        yield
    except Exception as error:  # the network's own code, and any operation of it, may fail
        raise ExportError(
            f"the network cannot be exported: {_cause(error)}",
            where=type(network).__name__,
            remedy=f"write that part of its forward pass with operations that `{exporter}` knows, "
            "for any number of images",
        ) from error


def _cause(error: BaseException) -> str:
    """The first failure of a chain, which is the network's own."""
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {one_line(error)}"
