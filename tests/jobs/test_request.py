"""A request only validates its options; names of earlier versions are accepted."""

from __future__ import annotations

import os
from dataclasses import FrozenInstanceError, fields

import pytest
import torch

from dreamquant.errors import DreamQuantError, SchemeError, TrainingError
from dreamquant.jobs.request import DistillRequest, QuantizeRequest, asked
from dreamquant.jobs.run_request import RunRequest
from dreamquant.methods import METHODS
from dreamquant.quantization.scheme import Bits
from tiny_runs import short_method

KINDS = [RunRequest, QuantizeRequest, DistillRequest]

SLURM = {
    "SLURM_STEP_NUM_TASKS": "2",
    "SLURM_PROCID": "1",
    "SLURM_LOCALID": "1",
    "SLURM_STEP_NODELIST": "localhost",
    "SLURM_JOB_ID": "1",
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_request_changes_nothing_of_the_process(kind, monkeypatch):
    for name, value in SLURM.items():
        monkeypatch.setenv(name, value)
    random, environment = torch.get_rng_state(), dict(os.environ)
    threads = torch.get_num_threads()
    request = kind(threads=threads + 1, precision="bf16", device="cpu", seed=5, budget="5min")
    assert request.seconds == 300
    request.record()
    request.configuration("cpu")
    assert torch.get_num_threads() == threads
    assert dict(os.environ) == environment
    assert torch.get_rng_state().equal(random)
    assert torch.get_default_dtype() == torch.float32
    assert not torch.distributed.is_initialized()


def test_threads_are_set_when_the_run_begins():
    before = torch.get_num_threads()
    try:
        request = RunRequest(threads=before + 1, device="cpu")
        assert request.accelerator().device.type == "cpu"
        assert torch.get_num_threads() == before + 1
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("kind", KINDS)
def test_a_request_is_a_value(kind):
    assert kind() == kind()
    with pytest.raises(FrozenInstanceError):
        kind().seed = 1


@pytest.mark.parametrize("kind", KINDS)
def test_every_option_says_what_it_means(kind):
    for each in fields(kind):
        option = each.metadata["option"]
        assert option.meaning.endswith(".")
        assert bool(option.metavar) == (each.type != "bool")


@pytest.mark.parametrize(
    ("options", "where"),
    [
        ({"iterations": 0}, "--iterations"),
        ({"iterations": 5, "budget": "5min"}, "--iterations, --budget"),
        ({"seed": -1}, "--seed"),
        ({"seed": 2**32}, "--seed"),
        ({"budget": "soon"}, "--budget"),
        ({"device": "tpu"}, "--device"),
        ({"precision": "16"}, "--precision"),
        ({"threads": 0}, "--threads"),
    ],
)
def test_what_no_run_can_have_is_refused(options, where):
    with pytest.raises(TrainingError) as e:
        RunRequest(**options)
    assert e.value.where == where
    assert e.value.remedy


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ({"compiled": True}, {"compile": True}),
        ({"accumulate": 2}, {"micro_batches": 2}),
        ({"joins": 8}, {"elementwise": 8}),
        ({"norms": "kept"}, {"batch_norm": "kept"}),
        ({"norms": "matched"}, {"batch_norm": "re-estimated"}),
        ({"overrides": (("3", "w8a8"), ("8", "w2a4"))}, {"override": ("3=w8a8", "8=w2a4")}),
    ],
    ids=lambda options: " ".join(options),
)
def test_options_have_their_earlier_names_too(old, new):
    assert asked(QuantizeRequest, old) == asked(QuantizeRequest, new) == QuantizeRequest(**new)


def test_an_unknown_option_is_told_with_the_nearest():
    with pytest.raises(DreamQuantError, match="there is no option 'iteration'") as e:
        asked(QuantizeRequest, {"iteration": 3})
    assert e.value.remedy == "did you mean 'iterations'?"


def test_overrides_are_patterns_and_bits():
    request = QuantizeRequest(override=("layer1.*=w8a8", "fc=w2a4"))
    assert request.overrides == (("layer1.*", Bits(8, 8)), ("fc", Bits(2, 4)))
    with pytest.raises(SchemeError, match="'fc' does not name bits"):
        _ = QuantizeRequest(override=("fc",)).overrides


def test_what_is_recorded_can_be_asked_for_again(tmp_path):
    request = QuantizeRequest(
        bits="w3a3", data=tmp_path, override=("3=w8a8",), iterations=7, quiet=True, resume=True
    )
    record = request.record()
    assert record == {
        "bits": "w3a3",
        "method": "auto",
        "seed": 0,
        "data": str(tmp_path),
        "override": ["3=w8a8"],
        "iterations": 7,
    }
    again = asked(QuantizeRequest, record)
    assert again.record() == record


@pytest.mark.parametrize(
    ("method", "name"),
    [("gdfq+agm", "gdfq+agm"), (METHODS["gdfq"], "gdfq"), (short_method("gdfq"), None)],
    ids=["by name", "of the package", "in memory"],
)
def test_a_method_is_recorded_by_the_name_that_gives_it_again(method, name):
    assert QuantizeRequest(method=method).record()["method"] == name


def test_a_run_that_goes_on_shares_all_that_changes_a_result():
    configuration = QuantizeRequest(iterations=3).configuration("cpu")
    told = {each.name for each in fields(QuantizeRequest)}
    assert told - configuration.keys() == {"resume", "quiet", "verbose", "threads"}
    assert configuration["device"] == "cpu"
    for other in ({"seed": 1}, {"micro_batches": 2}, {"compile": True}, {"elementwise": 8}):
        assert QuantizeRequest(iterations=3, **other).configuration("cpu") != configuration
