"""Devices, precision and processes, carried by accelerate."""

from __future__ import annotations

import atexit
import os
import re
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

import torch

from dreamquant import distributed, machine
from dreamquant.errors import TrainingError

if TYPE_CHECKING:
    from accelerate import Accelerator

Precision = Literal["32", "bf16"]

_PRECISIONS = {"32": "no", "bf16": "bf16"}
AUTO = "auto"
_MEASURED_SECONDS = 1.0


_PORTS = 20000, 10000  # the first that jobs take, and how many of them


def slurm_place(environment: Mapping[str, str]) -> dict[str, str]:
    """What torchrun would have set for a process that srun started as one of several.

    Args:
        environment: of the process; what it says already stays as it is.

    Returns:
        The variables to add; none for a process on its own, or one that has a launcher.
    """
    tasks = environment.get("SLURM_STEP_NUM_TASKS", "1")
    if tasks == "1" or "RANK" in environment:
        return {}
    first, count = _PORTS
    # A task that was given a GPU of its own sees no other, and calls that one the first.
    visible = max(torch.cuda.device_count(), 1)
    place = {
        "RANK": environment["SLURM_PROCID"],
        "LOCAL_RANK": str(int(environment["SLURM_LOCALID"]) % visible),
        "WORLD_SIZE": tasks,
        "MASTER_ADDR": _first_host(environment["SLURM_STEP_NODELIST"]),
        "MASTER_PORT": str(first + int(environment["SLURM_JOB_ID"]) % count),
    }
    return {name: value for name, value in place.items() if name not in environment}


def _first_host(nodes: str) -> str:
    """``node03`` of ``node[03-05,9],login``."""
    found = re.match(r"([^\[,]*)(?:\[(\d+)[^]]*\]([^,]*))?", nodes)
    assert found is not None  # all parts of the pattern may be empty
    return "".join(part or "" for part in found.groups())


def accelerator_for(device: str, precision: str, threads: int | None = None) -> Accelerator:
    """The device to run on.

    Args:
        device: ``auto`` takes a GPU where there is one; ``cpu``; ``cuda``.
        precision: ``32``, or ``bf16`` for mixed precision while training; the student is always
            evaluated and saved in float32. ``auto`` is what :func:`chosen_precision` says.
        threads: of this process from now on; ``None`` leaves them, one per core or as
            ``OMP_NUM_THREADS`` has it.

    Raises:
        TrainingError: there is no such device, precision or number of threads.
    """
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    require_device(device, precision, threads)
    machine.keep_freed_memory()
    if precision == AUTO:
        precision = chosen_precision(device)
    if threads is not None:
        torch.set_num_threads(threads)
    os.environ.update(slurm_place(os.environ))
    before = distributed.started()
    # accelerate holds a process to its first device and precision; this run may ask for others.
    AcceleratorState._reset_state(reset_partial_state=True)
    accelerator = Accelerator(cpu=device == "cpu", mixed_precision=_PRECISIONS[precision])
    if distributed.started() and not before:
        atexit.register(distributed.leave)
    return accelerator


def require_device(device: str, precision: str, threads: int | None) -> None:
    """Refuse what this machine does not have; nothing is set.

    Raises:
        TrainingError: there is no such device, precision or number of threads.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise TrainingError(
            f"{device!r} is not a device", where="--device", remedy="choose auto, cpu or cuda"
        )
    if device == "cuda" and not torch.cuda.is_available():
        raise TrainingError(
            "this machine has no CUDA device that PyTorch can use",
            where="--device cuda",
            remedy="use --device auto or cpu; `dreamquant doctor` shows what was found",
        )
    if precision not in (AUTO, *_PRECISIONS):
        raise TrainingError(
            f"{precision!r} is not a precision",
            where="--precision",
            remedy="choose auto, 32 or bf16",
        )
    if threads is not None and threads < 1:
        raise TrainingError(
            f"{threads} is not a number of threads", where="--threads", remedy="give 1 or more"
        )


def has_bfloat16(device: str) -> bool:
    """Whether a device multiplies bfloat16 in hardware, and so faster than float32.

    Processors: those with AVX512-BF16 or AMX-BF16, or Arm's BF16. GPUs: CUDA capability 8.0 and
    later. Other processors convert each number in software: ResNet-20 took 7.8 times as long on an
    AVX2 processor.

    Args:
        device: ``auto``, ``cpu`` or ``cuda``.
    """
    if device != "cpu" and torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return machine.has_bfloat16()


def chosen_precision(device: str) -> Precision:
    """What ``--precision auto`` means on this machine: ``bf16`` where it is fast, or ``32``."""
    return "bf16" if has_bfloat16(device) else "32"


def bfloat16_ratio(device: str) -> float:
    """Time of a 3×3 convolution in bfloat16 over that in float32; takes about a second.

    Forward and backward of 16 images of 64 channels, 32×32 pixels; each precision's fastest of
    several turns.

    Args:
        device: ``auto``, ``cpu`` or ``cuda``.
    """
    place = "cuda" if device != "cpu" and torch.cuda.is_available() else "cpu"
    layer = torch.nn.Conv2d(64, 64, 3, padding=1, device=place)
    images = torch.randn(16, 64, 32, 32, device=place, requires_grad=True)
    fastest = {False: float("inf"), True: float("inf")}
    deadline = time.monotonic() + _MEASURED_SECONDS
    while time.monotonic() < deadline or float("inf") in fastest.values():
        for half in fastest:
            fastest[half] = min(fastest[half], _seconds_of(layer, images, half))
    return fastest[True] / fastest[False]


def _seconds_of(layer: torch.nn.Conv2d, images: torch.Tensor, half: bool) -> float:
    start = _now(images)
    with torch.autocast(images.device.type, torch.bfloat16, enabled=half):
        out = layer(images)
    torch.autograd.grad(out.float().sum(), [images, layer.weight])
    return _now(images) - start


def _now(images: torch.Tensor) -> float:
    """The time when all that was asked of the images' device is done."""
    if images.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter()
