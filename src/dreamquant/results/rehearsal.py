"""Rehearsal: all steps of a run on an untrained student, so that failures appear in seconds."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn

from dreamquant.errors import DreamQuantError, NetworkError
from dreamquant.evaluation.sites import answer_with, find_sites, twin
from dreamquant.networks.failures import naming_lines
from dreamquant.networks.outputs import as_one
from dreamquant.networks.probe import unlike
from dreamquant.networks.zoo import one_line
from dreamquant.quantization.convert import convert
from dreamquant.quantization.norms import match_norms
from dreamquant.quantization.scheme import Scheme
from dreamquant.quantization.student import Student
from dreamquant.results.student import decode, encode

_SEED = 0
_BATCHES = (2, 3)  # two sizes, so that the batch size is not taken as a constant of the network


def rehearse(
    teacher: nn.Module,
    student: Student,
    scheme: Scheme,
    example: Tensor,
    *,
    reestimate: bool = False,
    then: Callable[[Student], object] | None = None,
) -> None:
    """Observe, differentiate, fix, analyse, save and open a copy of a student, on noise.

    Args:
        teacher: the teacher in eval mode; it is not changed.
        student: the untrained student; it is not changed.
        scheme: scheme of the student.
        example: normalised images (B, C, H, W); the noise gets their shape, type and device.
        reestimate: whether the method re-estimates batch norms.
        then: a further step at the end of the run, such as an export, with the fixed student.

    Raises:
        NetworkError: a step fails; the message has the cause.
        DreamQuantError: a step fails with its own error.
    """
    stage = partial(_stage, teacher=teacher, example=example)
    random = torch.Generator().manual_seed(_SEED)
    shape = example.shape[1:]
    noise = [torch.randn((n, *shape), generator=random).to(example) for n in _BATCHES]
    made = copy.deepcopy(student)
    with stage("observing ranges"), torch.no_grad():
        made.observe(True)
        for images in (*unlike(example), *noise):
            made(images)
        made.observe(False)
    if reestimate:
        with stage("re-estimating batch norms"):
            match_norms(made, teacher, noise[:1])
    with stage("differentiating the student"):
        output: Tensor = as_one(made(noise[0].clone().requires_grad_())).float()
        torch.autograd.backward(output.square().sum())
        made.zero_grad()
    made.fix()
    with stage("analysing the student"):
        parts = twin(teacher, made)
        answer_with(parts, made, find_sites(parts, made, noise[0]), noise)
    with stage("saving and opening the student"):
        _require_same(made, teacher, scheme, example, noise[1])
    if then is not None:
        with stage("exporting the student"):
            then(made)


@torch.no_grad()
def _require_same(
    made: Student, teacher: nn.Module, scheme: Scheme, example: Tensor, images: Tensor
) -> None:
    opened = convert(teacher, scheme, torch.zeros_like(example))
    decode(opened, encode(made), "the untrained student")
    if not torch.equal(as_one(opened(images)), as_one(made(images))):
        raise NetworkError(
            "the student's outputs change after it is saved and opened",
            where=type(teacher).__name__,
            remedy="store everything that the network's outputs depend on in parameters and "
            "buffers of its state_dict, and let equal images give equal outputs",
        )


@contextmanager
def _stage(what: str, teacher: nn.Module, example: Tensor) -> Iterator[None]:
    try:
        with naming_lines(teacher, example):
            yield
    except DreamQuantError:
        raise
    except Exception as error:  # the network's code and any operation may fail
        raise NetworkError(
            f"{what} fails before training: {type(error).__name__}: {one_line(error)}",
            where=what,
            remedy="write that part of the network with other operations, or report this",
        ) from error
