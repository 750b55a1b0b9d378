from __future__ import annotations

import pytest
import torch

from dreamquant.errors import TrainingError
from dreamquant.training.devices import accelerator_for


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
    with pytest.raises(TrainingError, match="is no") as e:
        accelerator_for(device, precision)
    assert e.value.where == where
    assert "choose" in e.value.remedy


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


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_each_run_of_a_process_chooses_its_own_device():
    for device in ("cpu", "cuda", "cpu", "auto"):
        wanted = "cpu" if device == "cpu" else "cuda"
        assert accelerator_for(device, "32").device.type == wanted
