"""Devices, precision and processes, carried by accelerate."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from dreamquant.errors import TrainingError

if TYPE_CHECKING:
    from accelerate import Accelerator

_PRECISIONS = {"32": "no", "bf16": "bf16"}


def accelerator_for(device: str, precision: str) -> Accelerator:
    """The device to run on.

    Args:
        device: ``auto`` takes a GPU where there is one; ``cpu``; ``cuda``.
        precision: ``32``, or ``bf16`` for mixed precision while training; the student is always
            evaluated and saved in float32.

    Raises:
        TrainingError: there is no such device or precision.
    """
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    if device not in ("auto", "cpu", "cuda"):
        raise TrainingError(
            f"{device!r} is no device", where="--device", remedy="choose auto, cpu or cuda"
        )
    if device == "cuda" and not torch.cuda.is_available():
        raise TrainingError(
            "this machine has no CUDA device that PyTorch can use",
            where="--device cuda",
            remedy="use --device auto or cpu; `dreamquant doctor` shows what was found",
        )
    if precision not in _PRECISIONS:
        raise TrainingError(
            f"{precision!r} is no precision", where="--precision", remedy="choose 32 or bf16"
        )
    # accelerate holds a process to its first device and precision; this run may ask for others.
    AcceleratorState._reset_state(reset_partial_state=True)
    return Accelerator(cpu=device == "cpu", mixed_precision=_PRECISIONS[precision])
