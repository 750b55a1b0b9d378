"""Out of memory becomes an error that names what helps."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from dreamquant.errors import TrainingError

# PyTorch has a type for a full GPU, but only words for full main memory.
_FULL = "can't allocate memory"


@contextmanager
def sparing_memory(device: torch.device) -> Iterator[None]:
    """Whatever runs out of memory inside says what takes less of it.

    Args:
        device: that is trained on.

    Raises:
        TrainingError: memory did not suffice.
    """
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        known = isinstance(error, torch.OutOfMemoryError | MemoryError)
        if not known and _FULL not in str(error):
            raise
        raise TrainingError(
            "the memory does not suffice",
            where=_name(device),
            remedy="--accumulate 2 takes half a batch at a time, --precision bf16 half the bytes; "
            "what was saved before is kept for --resume",
        ) from error


def _name(device: torch.device) -> str:
    if device.type != "cuda":
        return f"{device.type}, main memory"
    total = torch.cuda.get_device_properties(device).total_memory
    return f"{torch.cuda.get_device_name(device)}, {total / 2**30:.0f} GiB"
