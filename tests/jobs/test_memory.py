from __future__ import annotations

import pytest
import torch

from dreamquant.errors import DataError, TrainingError
from dreamquant.jobs.memory import sparing_memory

CPU = torch.device("cpu")


def of_main_memory():
    torch.empty(2**55)


def of_a_gpu():
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")


def of_python():
    bytearray(2**55)


@pytest.mark.parametrize("run_out", [of_main_memory, of_a_gpu, of_python])
def test_out_of_memory_says_what_helps(run_out):
    with pytest.raises(TrainingError, match="not enough memory") as e, sparing_memory(CPU):
        run_out()
    assert e.value.where == "cpu, main memory"
    for option in ("--micro-batches", "--precision bf16", "--resume"):
        assert option in e.value.remedy


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("shape mismatch"),
        NotImplementedError("no derivative"),
        RecursionError("too deep"),
        DataError("no"),
        ValueError(),
    ],
)
def test_other_errors_stay_what_they_are(error):
    with pytest.raises(type(error)) as e, sparing_memory(CPU):
        raise error
    assert e.value is error
