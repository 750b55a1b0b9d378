from __future__ import annotations

import io
import os
import pickle
import zipfile

import pytest
import torch

from dreamquant.errors import TrainingError
from dreamquant.jobs.checkpoint import STATE, encode, read, require_same_run

# torch's word on pickles it never wrote itself
pytestmark = pytest.mark.filterwarnings("ignore:Detected pickle protocol")

STATE_DICT = {
    "configuration": {"seed": 0, "overrides": []},
    "run": {"done": 3, "random": torch.get_rng_state(), "weights": torch.arange(40.0)},
    "record": {"losses": [{"iteration": 3, "student/KD": 0.25}], "ranges_only": None},
}


def refused(folder):
    with pytest.raises(TrainingError) as e:
        read(folder)
    assert str(folder / STATE) in e.value.where
    assert e.value.remedy
    return e.value.what


def test_what_is_encoded_is_read_back(tmp_path):
    (tmp_path / STATE).write_bytes(encode(STATE_DICT))
    state = read(tmp_path)
    assert state["configuration"] == STATE_DICT["configuration"]
    assert state["record"] == STATE_DICT["record"]
    assert state["run"]["weights"].equal(STATE_DICT["run"]["weights"])
    assert state["run"]["random"].equal(STATE_DICT["run"]["random"])


def test_a_missing_checkpoint_is_told(tmp_path):
    assert refused(tmp_path) == "there is no checkpoint to resume"


@pytest.mark.parametrize("kept", [0.0, 0.01, 0.1, 0.5, 0.9, 0.99])
def test_a_truncated_checkpoint_is_refused(kept, tmp_path):
    whole = encode(STATE_DICT)
    (tmp_path / STATE).write_bytes(whole[: int(kept * len(whole))])
    assert "cannot be read" in refused(tmp_path)


@pytest.mark.parametrize("seed", range(12))
def test_a_damaged_checkpoint_is_refused(seed, tmp_path):
    whole = bytearray(encode(STATE_DICT))
    random = torch.Generator().manual_seed(seed)
    for position in torch.randint(len(whole), (200,), generator=random).tolist():
        whole[position] ^= 0xFF
    (tmp_path / STATE).write_bytes(whole)
    assert "cannot be read" in refused(tmp_path)


@pytest.mark.parametrize("data", [b"hello", b"PK\x03\x04", b"\x80\x02.", b"\x80\x04K\x01.", b"("])
def test_what_was_never_a_checkpoint_is_refused(data, tmp_path):
    (tmp_path / STATE).write_bytes(data)
    assert "cannot be read" in refused(tmp_path)


@pytest.mark.parametrize(
    "content",
    [torch.zeros(3), [1, 2], {"configuration": {}}, {"run": {}, "record": {}}],
    ids=["tensor", "list", "no training", "no configuration"],
)
def test_other_data_than_a_checkpoint_is_refused(content, tmp_path):
    buffer = io.BytesIO()
    torch.save(content, buffer)
    (tmp_path / STATE).write_bytes(buffer.getvalue())
    assert "cannot be read" in refused(tmp_path)


class Malicious:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("form", ["torch", "bare pickle"])
def test_code_in_a_checkpoint_does_not_run(form, tmp_path):
    victim = tmp_path / "was_here"
    evil = STATE_DICT | {"configuration": Malicious(str(victim))}
    if form == "torch":
        buffer = io.BytesIO()
        torch.save(evil, buffer)
        assert zipfile.is_zipfile(buffer)
        (tmp_path / STATE).write_bytes(buffer.getvalue())
    else:
        (tmp_path / STATE).write_bytes(pickle.dumps(evil["configuration"]))
    what = refused(tmp_path)
    assert not victim.exists()
    assert "cannot be read" in what
    assert "weights_only" not in what, "advises to run the file's code"
    assert "\n" not in what


CONFIGURATION = {"method": "adadfq", "seed": 0, "iterations": None, "scheme": {"bits": "w4a4"}}


def test_the_same_configuration_may_go_on(tmp_path):
    assert require_same_run(CONFIGURATION, dict(CONFIGURATION), tmp_path) is None


@pytest.mark.parametrize(
    ("setting", "value"),
    [("method", "gdfq"), ("seed", 1), ("iterations", 10), ("scheme", None)],
)
def test_another_configuration_is_refused_by_name(setting, value, tmp_path):
    with pytest.raises(TrainingError) as e:
        require_same_run(CONFIGURATION, CONFIGURATION | {setting: value}, tmp_path)
    assert f"made with {setting} = {CONFIGURATION[setting]!r}" in e.value.what
    assert f"this run has {value!r}" in e.value.what
    assert e.value.where == str(tmp_path)


def test_settings_that_only_one_version_knows_are_refused_too(tmp_path):
    more = CONFIGURATION | {"precision": "bf16"}
    for saved, asked in ((CONFIGURATION, more), (more, CONFIGURATION)):
        with pytest.raises(TrainingError, match="made with precision"):
            require_same_run(saved, asked, tmp_path)


def test_of_nested_settings_the_one_that_differs_is_named(tmp_path):
    saved = {"seed": 0, "scheme": {"placement": "relu-output", "bits": {"weight": 4}}}
    asked = {"seed": 0, "scheme": {"placement": "relu-output", "bits": {"weight": 3}}}
    require_same_run(saved, saved, tmp_path)
    with pytest.raises(TrainingError, match=r"made with scheme\.bits\.weight = 4, this run has 3"):
        require_same_run(saved, asked, tmp_path)
