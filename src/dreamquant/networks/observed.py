"""Runs a network on two noise images and observes its outputs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from dreamquant.errors import DreamQuantError, NetworkError
from dreamquant.networks.choices import Kind
from dreamquant.networks.endings import ends_in_sigmoids
from dreamquant.networks.task import described, output_names, require_task, task_in
from dreamquant.networks.zoo import one_line


class Seen(NamedTuple):
    """The observed outputs of a network.

    Attributes:
        task: task of the network.
        outputs: names of the outputs.
        classes: number of logits. Without logits, the number that the origin gives, or 0.
        notes: descriptions of the findings.
    """

    task: Kind
    outputs: tuple[str, ...]
    classes: int
    notes: tuple[str, ...]


def observe(
    module: nn.Module,
    shape: tuple[int, ...],
    name: str,
    *,
    task: Kind | None = None,
    classes: int | None = None,
) -> Seen:
    """Run a network and observe its outputs.

    Args:
        module: a network that :func:`dreamquant.networks.fit.fit` has prepared.
        shape: shape of one input.
        name: name of the network, for errors.
        task: the requested task; ``None`` to recognise it from the outputs.
        classes: number of classes that the origin or the user gives.

    Raises:
        NetworkError: the network does not run, its outputs do not fit the task, or its number of
                classes differs.
    """
    images = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad(), running(shape, name):
        output = module(images)
    found = task_in(
        output,
        len(images),
        sigmoid=ends_in_sigmoids(module),
        plane=shape[1:],
        classes=classes,
    )
    chosen = task or found
    require_task(chosen, output)
    if chosen == "regression":
        return Seen(chosen, output_names(chosen, output), classes or 0, _notes(chosen, output))
    assert isinstance(output, Tensor)
    measured = output.shape[1]
    if classes is not None and measured != (
        max(classes, 2) if chosen == "classification" else classes
    ):
        raise NetworkError(
            f"{name} has {measured} classes, not {classes}",
            where="--classes",
            remedy="leave the option out, or give a network and weights with that many classes",
        )
    return Seen(chosen, output_names(chosen, output), measured, _notes(chosen, output))


def _notes(task: Kind, output: object) -> tuple[str, ...]:
    if task == "classification":
        return ()
    return (f"its task is {task}: for 2 images it returns {described(output)} (see --task)",)


@contextmanager
def running(shape: tuple[int, ...], name: str) -> Iterator[None]:
    """Turn any exception of a forward pass into an error about the input."""
    try:
        yield
    except DreamQuantError:
        raise
    except Exception as error:  # the network's code may raise anything
        raise NetworkError(
            f"{name} does not run on an input of {'x'.join(map(str, shape))}: {one_line(error)}",
            where="--input",
            remedy="give the channels, height and width that it was trained with",
        ) from error
