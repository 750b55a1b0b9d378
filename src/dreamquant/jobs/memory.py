"""Out of memory becomes an error that names options that need less."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from dreamquant.errors import TrainingError

# PyTorch has an exception type for a full GPU, but only a message for full main memory.
_FULL = "can't allocate memory"


@contextmanager
def sparing_memory(device: torch.device) -> Iterator[None]:
    """Turn running out of memory into an error that names options that need less.

    Args:
        device: the device of training.

    Raises:
        TrainingError: there was not enough memory.
    """
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        known = isinstance(error, torch.OutOfMemoryError | MemoryError)
        if not known and _FULL not in str(error):
            raise
        raise TrainingError(
            "there is not enough memory",
            where=_name(device),
            remedy="--micro-batches 2 processes half a batch at a time, --precision bf16 needs "
            "half the bytes; the last checkpoint is kept for --resume",
        ) from error


def _name(device: torch.device) -> str:
    if device.type != "cuda":
        return f"{device.type}, main memory"
    total = torch.cuda.get_device_properties(device).total_memory
    return f"{torch.cuda.get_device_name(device)}, {total / 2**30:.0f} GiB"
