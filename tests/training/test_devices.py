from __future__ import annotations

import pytest
import torch

from dreamquant import machine
from dreamquant.errors import TrainingError
from dreamquant.training import devices
from dreamquant.training.devices import (
    accelerator_for,
    bfloat16_ratio,
    chosen_precision,
    slurm_place,
)


def test_auto_takes_what_there_is():
    wanted = "cuda" if torch.cuda.is_available() else "cpu"
    assert accelerator_for("auto", "32").device.type == wanted


@pytest.mark.parametrize(
    ("device", "precision", "where"),
    [
        ("tpu", "32", "--device"),
        ("", "32", "--device"),
        ("cpu", "16", "--precision"),
        ("cpu", "fp8", "--precision"),
    ],
)
def test_unknown_choices_are_refused(device, precision, where):
    with pytest.raises(TrainingError, match="is not a") as e:
        accelerator_for(device, precision)
    assert e.value.where == where
    assert "choose" in e.value.remedy


def test_threads_are_those_asked_for_or_left_alone():
    before = torch.get_num_threads()
    try:
        accelerator_for("cpu", "32", threads=3)
        assert torch.get_num_threads() == 3
        accelerator_for("cpu", "32")
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("threads", [0, -1])
def test_no_threads_are_refused(threads):
    with pytest.raises(TrainingError, match="is not a number of threads") as e:
        accelerator_for("cpu", "32", threads)
    assert e.value.where == "--threads"


def test_a_missing_gpu_is_told(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(TrainingError, match="no CUDA device") as e:
        accelerator_for("cuda", "32")
    assert "dreamquant doctor" in e.value.remedy


def test_each_run_of_a_process_chooses_its_own_precision():
    for precision, dtype in (
        ("32", torch.float32),
        ("bf16", torch.bfloat16),
        ("32", torch.float32),
    ):
        accelerator = accelerator_for("cpu", precision)
        with accelerator.autocast():
            assert torch.mm(torch.ones(2, 2), torch.ones(2, 2)).dtype == dtype


@pytest.mark.parametrize(("there", "wanted"), [(True, "bf16"), (False, "32")])
def test_auto_takes_bfloat16_where_the_processor_has_it(there, wanted, monkeypatch):
    monkeypatch.setattr(machine, "has_bfloat16", lambda: there)
    assert chosen_precision("cpu") == wanted


@pytest.mark.parametrize(("there", "wanted"), [(True, "bf16"), (False, "32")])
def test_auto_asks_the_gpu_where_that_is_used(there, wanted, monkeypatch):
    monkeypatch.setattr(machine, "has_bfloat16", lambda: not there)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: there)
    assert chosen_precision("auto") == chosen_precision("cuda") == wanted
    assert chosen_precision("cpu") != wanted


def test_the_ratio_is_of_the_fastest_turns(monkeypatch):
    seconds = {False: iter([4.0, 2.0, 3.0]), True: iter([9.0, 8.0, 7.0])}
    clock = iter([0.0, 0.1, 0.2, 0.3, 1.5])
    monkeypatch.setattr(devices.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(devices, "_seconds_of", lambda layer, images, half: next(seconds[half]))
    assert bfloat16_ratio("cpu") == 7.0 / 2.0


def test_a_turn_computes_in_the_precision_that_is_timed(monkeypatch):
    layer, dtypes = torch.nn.Conv2d(2, 2, 3), []
    layer.register_forward_hook(lambda *seen: dtypes.append(seen[2].dtype))
    images = torch.randn(1, 2, 5, 5, requires_grad=True)
    assert all(devices._seconds_of(layer, images, half) > 0 for half in (False, True))
    assert dtypes == [torch.float32, torch.bfloat16]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_each_run_of_a_process_chooses_its_own_device():
    for device in ("cpu", "cuda", "cpu", "auto"):
        wanted = "cpu" if device == "cpu" else "cuda"
        assert accelerator_for(device, "32").device.type == wanted


# ------------------------------------------------------------------------------- SLURM

STEP = {
    "SLURM_STEP_NUM_TASKS": "6",
    "SLURM_PROCID": "4",
    "SLURM_LOCALID": "1",
    "SLURM_STEP_NODELIST": "gpu[07-09],login1",
    "SLURM_JOB_ID": "31234",
}


def test_a_task_of_srun_finds_its_place(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert slurm_place(STEP) == {
        "RANK": "4",
        "LOCAL_RANK": "1",
        "WORLD_SIZE": "6",
        "MASTER_ADDR": "gpu07",
        "MASTER_PORT": "21234",
    }


def test_a_task_that_sees_one_gpu_takes_that(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert slurm_place(STEP)["LOCAL_RANK"] == "0"


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("localhost", "localhost"),
        ("a1,a2", "a1"),
        ("cn-[3,5-9]", "cn-3"),
        ("n[01-02]-ib,m1", "n01-ib"),
    ],
)
def test_the_first_host_leads(nodes, first):
    assert slurm_place(STEP | {"SLURM_STEP_NODELIST": nodes})["MASTER_ADDR"] == first


def test_what_a_user_set_stays():
    assert "MASTER_PORT" not in slurm_place(STEP | {"MASTER_PORT": "5"})


@pytest.mark.parametrize(
    "environment",
    [
        {},
        # A shell inside a job, and a batch script: srun started neither.
        {"SLURM_NTASKS": "8", "SLURM_PROCID": "0", "SLURM_JOB_ID": "1"},
        STEP | {"SLURM_STEP_NUM_TASKS": "1"},
        STEP | {"RANK": "0"},
    ],
    ids=["none", "batch script", "one task", "torchrun"],
)
def test_a_process_on_its_own_stays_so(environment):
    assert slurm_place(environment) == {}
