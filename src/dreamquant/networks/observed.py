"""What a network returns, seen on a batch of two images of noise."""

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
    """What a network's outputs are.

    Attributes:
        task: they are for.
        outputs: their names.
        classes: width of the logits; of tensors, how many the origin says there are, or 0.
        notes: what was found, in words.
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
    """Run a network and see what it returns.

    Args:
        module: ready: its ending is that of a network for losses, see
            :func:`dreamquant.networks.fit.fit`.
        shape: of one input.
        name: for errors.
        task: that was asked for; ``None`` for what the outputs look made for.
        classes: that the origin or the user says there are.

    Raises:
        NetworkError: the network does not run, returns something else than the task needs, or has
            another number of classes.
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
    if chosen == "tensors":
        return Seen(chosen, output_names(chosen, output), classes or 0, _notes(chosen, output))
    assert isinstance(output, Tensor)
    measured = output.shape[1]
    if classes is not None and measured != (
        max(classes, 2) if chosen == "classification" else classes
    ):
        raise NetworkError(
            f"{name} has {measured} classes, not {classes}",
            where="--classes",
            remedy="leave it out, or give the network and weights of that many classes",
        )
    return Seen(chosen, output_names(chosen, output), measured, _notes(chosen, output))


def _notes(task: Kind, output: object) -> tuple[str, ...]:
    if task == "classification":
        return ()
    return (f"its task is {task}: it returns {described(output)} for 2 images (see --task)",)


@contextmanager
def running(shape: tuple[int, ...], name: str) -> Iterator[None]:
    """Turn whatever a forward pass raises into an error about the input."""
    try:
        yield
    except DreamQuantError:
        raise
    except Exception as error:  # the network's own code may raise anything
        raise NetworkError(
            f"{name} does not run on an input of {'x'.join(map(str, shape))}: {one_line(error)}",
            where="--input",
            remedy="give the channels, height and width it was trained with",
        ) from error
