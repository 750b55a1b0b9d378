"""A resumed run keeps the precision of the machine that started it, which is on record."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn

import dreamquant
from dreamquant import InputSpec
from dreamquant.jobs import resume
from dreamquant.jobs.request import QuantizeRequest


def settled(**options):
    return resume.with_settled_precision(QuantizeRequest(device="cpu", **options), None).precision


def quantize(out, **options):
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1)]
    return dreamquant.quantize(
        nn.Sequential(*layers, nn.Flatten(), nn.Linear(4, 3)),
        method="adadfq",
        input=InputSpec(shape=(1, 8, 8), mean=(0.5,), std=(0.25,), num_classes=3),
        iterations=3,
        device="cpu",
        quiet=True,
        out=out,
        **options,
    )


@pytest.fixture
def machine_of(monkeypatch):
    """``machine_of(precision)``: from now on ``auto`` means that."""
    return lambda precision: monkeypatch.setattr(resume, "chosen_precision", lambda _: precision)


@pytest.mark.parametrize("precision", ["32", "bf16"])
def test_auto_is_what_suits_the_machine_and_a_choice_stays(precision, machine_of, monkeypatch):
    monkeypatch.setattr(resume, "has_bfloat16", lambda device: True)
    machine_of(precision)
    assert settled() == precision
    assert [settled(precision=chosen) for chosen in ("32", "bf16")] == ["32", "bf16"]


def test_the_precision_taken_is_on_record(machine_of, tmp_path):
    machine_of("bf16")
    manifest = quantize(tmp_path / "out").manifest
    found = [manifest[part]["precision"] for part in ("request", "configuration")]
    assert [*found, manifest["protocol"]["training_precision"]] == ["bf16"] * 3


def test_a_stopped_run_keeps_its_precision_on_another_machine(machine_of, tmp_path, monkeypatch):
    machine_of("bf16")
    whole = quantize(tmp_path / "whole")

    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("dreamquant.jobs.job.Job._outcome", stop)
        with pytest.raises(KeyboardInterrupt):
            quantize(tmp_path / "out")
    machine_of("32")
    resumed = quantize(tmp_path / "out", resume=True)
    assert resumed.manifest["protocol"]["training_precision"] == "bf16"
    written = [tmp_path / name / "student.safetensors" for name in ("whole", "out")]
    assert written[0].read_bytes() == written[1].read_bytes()
    # One that is over is returned, not refused for another precision.
    again = quantize(tmp_path / "out", resume=True)
    assert again.manifest["protocol"] == whole.manifest["protocol"]


def test_bfloat16_that_the_hardware_lacks_is_warned_of_with_what_it_costs(monkeypatch):
    monkeypatch.setattr(resume, "has_bfloat16", lambda device: False)
    monkeypatch.setattr(resume, "bfloat16_ratio", lambda device: 7.84)
    with pytest.warns(UserWarning, match=r"7\.8 times as long in bfloat16"):
        assert settled(precision="bf16") == "bf16"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert settled(precision="32") == "32"
        monkeypatch.setattr(resume, "has_bfloat16", lambda device: True)
        assert settled(precision="bf16") == "bf16"
