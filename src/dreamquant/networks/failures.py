"""Errors that name file and line of the network's code that failed."""

from __future__ import annotations

import inspect
import re
import traceback
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from dreamquant.errors import DreamQuantError, NetworkError
from dreamquant.networks.zoo import one_line

_OWN, _TORCH = Path(__file__).parents[1], Path(torch.__file__).parent
# The format in which Python prints the frames of a traceback; torch puts it into a warning.
_FRAME = re.compile(r'File "(?P<file>[^"]+)", line (?P<line>\d+)')


@contextmanager
def naming_lines(network: nn.Module, example: Tensor) -> Iterator[None]:
    """Turn any exception of the code of ``network`` into an error with its file and line.

    Args:
        network: the teacher.
        example: normalised images (B, ...), used to find an operation without a derivative.

    Raises:
        NetworkError: a function of the network failed, in a forward pass or in its derivative.
    """
    try:
        yield
    except DreamQuantError:
        raise
    except Exception as error:  # the network's code may raise anything
        files = _files(network)
        line = _last(_lines(error), files) or _without_derivative(network, example, files)
        if line is None:
            raise
        raise NetworkError(
            f"{Path(line[0]).name} fails while training: {type(error).__name__}: {one_line(error)}",
            where=f"{line[0]}:{line[1]}",
            remedy="correct the code there: training needs its derivative with respect to images "
            "and weights",
        ) from error


def _files(network: nn.Module) -> set[str]:
    """The files that define the classes of the network's modules, without PyTorch's files."""
    found = set()
    for kind in {type(module) for module in network.modules()}:
        try:
            found.add(inspect.getfile(kind))
        except (TypeError, OSError):  # a class made in an interactive session has no file
            found.add(kind.forward.__code__.co_filename)
    return {file for file in found if not _belongs(file, _TORCH) and not _belongs(file, _OWN)}


def _belongs(file: str, folder: Path) -> bool:
    return Path(file).is_relative_to(folder)


def _lines(error: BaseException) -> Iterable[tuple[str, int]]:
    frames = traceback.extract_tb(error.__traceback__)
    return [(frame.filename, frame.lineno or 0) for frame in frames]


def _last(lines: Iterable[tuple[str, int]], files: set[str]) -> tuple[str, int] | None:
    own = [line for line in lines if line[0] in files]
    return own[-1] if own else None


def _without_derivative(
    network: nn.Module, example: Tensor, files: set[str]
) -> tuple[str, int] | None:
    """The line whose operation fails in a backward pass, which runs no code of the network."""
    images = example.detach().clone().requires_grad_()
    with warnings.catch_warnings(record=True) as said, torch.autograd.set_detect_anomaly(True):
        warnings.simplefilter("always")
        try:
            network(images).sum().backward()
        except Exception as error:  # as above
            told = "\n".join(str(warning.message) for warning in said)
            frames = [(frame["file"], int(frame["line"])) for frame in _FRAME.finditer(told)]
            return _last(_lines(error), files) or _last(frames, files)
    return None
