"""The bench of a job, and the run of its method."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn

from dreamquant.jobs.run_request import JobRequest
from dreamquant.methods.method import Method
from dreamquant.networks.load import Network
from dreamquant.networks.spec import InputSpec
from dreamquant.networks.taps import Tap
from dreamquant.quantization.student import Student
from dreamquant.synthesis.source import Images
from dreamquant.training.bench import Bench
from dreamquant.training.phase import Phase, Run
from dreamquant.training.rng import Rng
from dreamquant.training.step import Players
from dreamquant.training.watched import Watched


def set_up(
    network: Network,
    floating: nn.Module,
    student: Student,
    method: Method,
    request: JobRequest,
    accelerator: Accelerator,
) -> Bench:
    """Put both networks on the device, with the taps that the method declares.

    The caller's network is not moved: another device gets a copy.

    Args:
        network: the teacher.
        floating: the float network that the student was made from.
        student: the student at the start.
        method: resolved.
        request: length, device and precision of the run.
        accelerator: device, precision and processes.

    Raises:
        NetworkError: the network lacks what the method reads.
    """
    device = accelerator.device
    teacher = _on(network.module, device)
    watched = _watched(teacher, network.input, method.teacher_taps, request.compile, device)
    student = student.to(device)
    asked = _watched(student, network.input, method.student_taps, request.compile, device)
    return Bench(
        prepared=teacher if floating is network.module else _on(floating, device),
        student=student,
        players=Players(watched, asked),
        input=network.input,
        # All processes draw the same request, and each makes images for its own part.
        rng=Rng.seeded(request.seed + 1, device),
        seed=request.seed,
        accelerator=accelerator,
        accumulate=request.accumulate,
        compiled=request.compile,
    )


def _on(module: nn.Module, device: torch.device) -> nn.Module:
    if device.type == "cpu":
        return module
    return copy.deepcopy(module).to(device)


def _watched(
    network: nn.Module,
    spec: InputSpec,
    taps: Sequence[Tap[Any]],
    compiled: bool,
    device: torch.device,
) -> Watched:
    watched = Watched(network, torch.zeros(2, *spec.shape, device=device), taps)
    if compiled:
        watched.compile()
    return watched


def throwaway(bench: Bench) -> Bench:
    """A bench with a copy of the student, for a probe that must not change the student."""
    student, taps = copy.deepcopy(bench.student), bench.players.student.taps
    asked = _watched(student, bench.input, taps, bench.compiled, bench.device)
    players = Players(bench.players.teacher, asked)
    rng = Rng.seeded(bench.seed + 1, bench.device)
    own = Bench(bench.prepared, student, players, bench.input, rng, bench.seed, bench.accelerator)
    return replace(own, accumulate=bench.accumulate, compiled=bench.compiled)


def begin(bench: Bench, method: Method, plan: Sequence[float] = ()) -> tuple[Run, Images | None]:
    """The run of a method: its images are opened, and no phase has begun.

    Args:
        bench: networks, random generators and device of the run.
        method: resolved.
        plan: seconds of each phase, if there is a budget.
    """
    images = None
    if method.images is not None:
        images = method.images.open(bench, method.updates)
        bench.images = images
    return Run(bench, _phases(bench, method, images), plan), images


def _phases(bench: Bench, method: Method, images: Images | None) -> Iterator[Phase]:
    if images is not None:
        yield from images.phases()
    for part in method.recovery:
        yield from part.phases(bench, images)
